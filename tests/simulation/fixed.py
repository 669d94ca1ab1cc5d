"""The worlds that are the same in every run: small ones, chosen for the planted mistakes that they find.

A change of the engine makes other worlds of the same seeds. `python -m tests.simulation.mutations --fixed` says what
they find today; where that has become little, choose others.
"""

FIXED = (
    *(788, 212, 498, 13, 879, 472, 451, 459, 688, 337, 36, 132, 662, 804, 420, 323, 160, 794, 24, 564),
    *(820, 289, 449, 734, 125, 495, 563, 629, 799, 31, 778, 494, 331, 679, 500, 53, 15, 55, 365, 485),
)
"""Seeds, smallest world first: from a twelfth of a second to half of one."""
