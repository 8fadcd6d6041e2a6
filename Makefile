# make demo: train, evaluate and look at a small Stable-DINO.   make test: run the tests.
# make stress: fuzzing and killed trainings, some minutes more; MMDET_STABLE_STRESS=10 tries ten times as much.
# make lint: ruff, mypy, codespell, as CI and the hooks of pre-commit run them.   make types: mypy alone.
# They create .venv first. Another interpreter: make clean test PYTHON=python3.12
# MMCV=lite takes the operators in torch, MMCV=compiled compiles mmcv; auto compiles it only for a GPU with nvcc.
PYTHON ?= python3
MMCV ?= auto
VENV := .venv/bin/python

.PHONY: demo demo-masks test stress lint types doctor clean

demo: .venv/ready
	$(VENV) tools/demo.py

demo-masks: .venv/ready
	$(VENV) tools/demo.py --masks --work-dir work_dirs/demo_masks

test: .venv/ready
	$(VENV) -m pytest --numprocesses 2 --dist loadfile

stress: .venv/ready
	$(VENV) -m pytest tests/stress tests/weights -m stress

lint: .venv/lint
	$(VENV) -m pre_commit run --all-files

types: .venv/lint
	$(VENV) -m mypy

doctor:
	$(if $(wildcard $(VENV)),$(VENV),$(PYTHON)) tools/doctor.py

.venv/ready: tools/setup_env.py requirements/stack.txt setup.py mmdet_stable/operators/_ext.py
	$(PYTHON) tools/setup_env.py --mmcv $(MMCV)

.venv/lint: .venv/ready requirements/lint.txt
	$(VENV) -m pip install --quiet --disable-pip-version-check -r requirements/lint.txt && touch $@

ifneq ($(MMCV),auto)
ifneq ($(MMCV),$(shell cat .venv/ready 2>/dev/null))
.PHONY: .venv/ready  # an environment with the other kind of operators is there, or none
endif
endif

clean:
	rm -rf .venv work_dirs/demo work_dirs/demo_masks data/digit_scenes
