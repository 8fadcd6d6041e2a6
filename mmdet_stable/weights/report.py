"""What a conversion did, for people."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Tuple

from .configs import Setting


@dataclass
class Report:
    """What a conversion found, wrote and left out; ``str()`` is for people."""

    source: Path
    family: str
    taken: str = ''
    others: Tuple[str, ...] = ()
    target: str = ''
    config: str = ''  # that was started from
    settings: List[Setting] = field(default_factory=list)
    fresh: List[str] = field(default_factory=list)  # weights of the model that start afresh
    left_over: List[str] = field(default_factory=list)  # weights of the file that the model does not have
    left_out: List[str] = field(default_factory=list)
    lost_rows: Dict[str, str] = field(default_factory=dict)
    notes: List[str] = field(default_factory=list)
    num_weights: int = 0
    written: List[Path] = field(default_factory=list)

    def __str__(self) -> str:
        taken = f' (its "{self.taken}")' if self.taken else ''
        lines = [f'{self.source}{taken}: {self.family}', f'to {self.target}: {self.num_weights} tensors']
        if self.others:
            lines.append(f'also in the file, not taken: {", ".join(self.others)} (--ema takes the moving average)')
        for names, what in ((self.fresh, 'start afresh'), (self.left_over, 'left over'), (self.left_out, 'left out')):
            if names:
                lines.append(f'{what}: {", ".join(names)}')
        for loss in sorted(set(self.lost_rows.values())):
            names = [name for name, lost in self.lost_rows.items() if lost == loss]
            lines.append(f'without {loss}: {", ".join(names)}')
        lines += self.notes
        if self.config:
            lines.append(f'config: {self.config}' + (', changed:' if self.settings else ', as it is'))
        lines += [f'  {entry.key} = {entry.value!r} (was {entry.before!r}; {entry.why})' for entry in self.settings]
        lines += [f'written: {path}' for path in self.written]
        return '\n'.join(lines)
