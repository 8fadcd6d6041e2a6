# make demo: train, evaluate and look at a small Stable-DINO.   make test: run the tests.
# make stress: fuzzing and killed trainings, some minutes more; MMDET_STABLE_STRESS=10 tries ten times as much.
# Both create .venv first. Another interpreter: make clean test PYTHON=python3.12
PYTHON ?= python3
VENV := .venv/bin/python

.PHONY: demo demo-masks test stress lint doctor clean

demo: .venv/ready
	$(VENV) tools/demo.py

demo-masks: .venv/ready
	$(VENV) tools/demo.py --masks --work-dir work_dirs/demo_masks

test: .venv/ready
	$(VENV) -m pytest

stress: .venv/ready
	$(VENV) -m pytest tests/stress -m stress

lint: .venv/ready
	$(VENV) -m pip install --quiet pre-commit && $(VENV) -m pre_commit run --all-files

doctor:
	$(if $(wildcard $(VENV)),$(VENV),$(PYTHON)) tools/doctor.py

.venv/ready: tools/setup_env.py requirements/stack.txt setup.py
	$(PYTHON) tools/setup_env.py

clean:
	rm -rf .venv work_dirs/demo work_dirs/demo_masks data/digit_scenes
