"""What decisions end in when they refuse.

PolicyError
├── FinetuneRefused      a finetune cannot be done as it is wanted (policy.finetunes.request)
└── InvalidSchedule      a schedule that never could fire (policy.fire_times)
"""


class PolicyError(Exception):
    """Any refusal that this package raises on purpose."""
