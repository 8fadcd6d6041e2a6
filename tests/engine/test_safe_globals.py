import os
import pickle

import numpy as np
import pytest
import torch
from mmengine.logging.history_buffer import HistoryBuffer

from mmdet_stable.engine.safe_globals import history_statistic


def test_mmengine_buffers_survive_the_safe_loader(tmp_path):
    buffer = HistoryBuffer([1.0, 2.0], [1, 1])
    torch.save(dict(message_hub=dict(log_scalars=dict(loss=buffer)), value=np.float64(3)), tmp_path / 'c.pth')
    loaded = torch.load(tmp_path / 'c.pth', weights_only=True)
    assert loaded['message_hub']['log_scalars']['loss'].mean() == 1.5 and loaded['value'] == 3


class Payload:
    def __init__(self, call, *args):
        self.call, self.args = call, args

    def __reduce__(self):
        return self.call, self.args


@pytest.mark.parametrize('call', [os.system, eval, exec, getattr], ids=lambda call: call.__name__)
def test_payloads_do_not_run(tmp_path, call):
    target = tmp_path / 'ran'
    arguments = {getattr: (HistoryBuffer, '__init__'), os.system: (f'touch {target}',)}
    args = arguments.get(call, (f'open({str(target)!r}, "w")',))
    torch.save(dict(state_dict=Payload(call, *args)), tmp_path / 'c.pth')
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / 'c.pth', weights_only=True)
    assert not target.exists()


def test_only_statistics_of_buffers():
    assert history_statistic(HistoryBuffer, 'min') is HistoryBuffer.min
    for owner, name in ((HistoryBuffer, '__init__'), (os, 'system')):
        with pytest.raises(pickle.UnpicklingError, match='may not read the attribute'):
            history_statistic(owner, name)
