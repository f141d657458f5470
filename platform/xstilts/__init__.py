"""xstilts: does an English intermediate task improve zero-shot cross-lingual transfer?"""

__version__ = "0.1.0"
