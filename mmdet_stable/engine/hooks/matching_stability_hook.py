"""Unstable scores while training goes on."""

from mmdet.registry import HOOKS
from mmengine.dist import is_main_process
from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmdet_stable.evaluation.layer_predictions import predict_layers
from mmdet_stable.evaluation.matching_stability import MatchingStability, match_layers, unstable_scores
from mmdet_stable.evaluation.subject import first_images

from .model import unwrapped_model


@HOOKS.register_module()
class MatchingStabilityHook(Hook):
    """Logs the unstable score of every decoder layer during training, to the log and to every visualiser.

    The scores, in percent, are called ``train_matching/unstable_1`` and so on; their step is the iteration. In
    validation and testing the hook hands the model to :class:`MatchingStability`, where that is among the metrics.

    Args:
        interval: iterations from one measurement to the next; 0 for none during training.
        num_images: how many images to look at, the first ones of the validation set.

    Raises:
        ValueError: if ``interval`` is negative or ``num_images`` below 1; before training, if there is no validation
            set.

    Source: arXiv:2304.04742 Fig. 3, on the first 20 images of COCO's val2017 after 5,000 iterations.
    """

    def __init__(self, interval: int = 1000, num_images: int = 20) -> None:
        if interval < 0 or num_images < 1:
            raise ValueError(f'interval={interval} must be at least 0 (off), num_images={num_images} at least 1')
        self.interval = interval
        self.num_images = num_images

    def before_train(self, runner: Runner) -> None:
        if self.interval and runner.val_loop is None:
            raise ValueError('MatchingStabilityHook looks at validation images: set val_dataloader, or interval=0')

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        if self.interval and self.every_n_train_iters(runner, self.interval) and is_main_process():
            self._measure(runner)

    def _measure(self, runner: Runner) -> None:
        model = unwrapped_model(runner)
        model.eval()
        matches = [
            image
            for batch in first_images(runner.val_dataloader.dataset, self.num_images)
            for image in match_layers(model, predict_layers(model, batch))
        ]
        model.train()
        scores = unstable_scores(matches)
        runner.visualizer.add_scalars(
            {f'train_matching/unstable_{layer}': score for layer, score in scores.items()}, step=runner.iter + 1
        )
        shown = ', '.join(f'layer {layer}: {score:.1f}' for layer, score in scores.items())
        runner.logger.info(f'Unstable scores in percent after iteration {runner.iter + 1}: {shown}')

    def before_val(self, runner: Runner) -> None:
        self._hand_over(runner, runner.val_evaluator)

    def before_test(self, runner: Runner) -> None:
        self._hand_over(runner, runner.test_evaluator)

    @staticmethod
    def _hand_over(runner: Runner, evaluator: Evaluator) -> None:
        for metric in evaluator.metrics:
            if isinstance(metric, MatchingStability):
                metric.model = unwrapped_model(runner)
