"""The 1,000 classes of ImageNet-1k as English texts: names with the kind of thing each one is.

A class name alone is often too special for a sentence encoder ("Samoyed", "lycaenid") or means
something else in plain English ("boxer", "admiral", "drake"). Its kind, the everyday word for what
it is, mends both: "a photo of a Samoyed, a dog". The classes stand in WordNet's order for animals
(so kinds are ranges there) and by the alphabet for artefacts (so kinds are lists there). A class
gets a kind only where an everyday word is clear and says more than the name; others have none.
"""

from functools import cache

NUM_CLASSES = 1000

# Inclusive ranges of class indices, in WordNet's order.
_KIND_RANGES: tuple[tuple[int, int, str], ...] = (
    (0, 1, "fish"),
    (2, 4, "shark"),
    (5, 6, "fish"),
    (7, 24, "bird"),
    (25, 29, "salamander"),
    (30, 32, "frog"),
    (33, 37, "turtle"),
    (38, 48, "lizard"),
    (49, 50, "reptile"),
    (51, 51, "dinosaur"),
    (52, 68, "snake"),
    (69, 69, "fossil"),
    (72, 77, "spider"),
    (80, 86, "bird"),
    (87, 90, "parrot"),
    (91, 96, "bird"),
    (97, 98, "duck"),
    (99, 100, "bird"),
    (101, 101, "elephant"),
    (102, 106, "animal"),
    (107, 108, "sea animal"),
    (109, 109, "coral"),
    (110, 111, "worm"),
    (112, 117, "mollusc"),
    (118, 121, "crab"),
    (122, 123, "lobster"),
    (124, 124, "crustacean"),
    (125, 125, "crab"),
    (126, 126, "crustacean"),
    (127, 146, "bird"),
    (147, 148, "whale"),
    (149, 150, "sea animal"),
    (151, 268, "dog"),
    (269, 271, "wolf"),
    (272, 275, "wild dog"),
    (276, 276, "animal"),
    (277, 280, "fox"),
    (281, 285, "cat"),
    (286, 293, "big cat"),
    (294, 297, "bear"),
    (298, 299, "animal"),
    (300, 307, "beetle"),
    (308, 320, "insect"),
    (321, 326, "butterfly"),
    (327, 329, "sea animal"),
    (330, 332, "rabbit"),
    (333, 334, "rodent"),
    (335, 335, "squirrel"),
    (336, 338, "rodent"),
    (339, 339, "horse"),
    (340, 340, "animal"),
    (341, 343, "pig"),
    (344, 344, "animal"),
    (345, 347, "cow"),
    (348, 349, "sheep"),
    (350, 350, "goat"),
    (351, 353, "antelope"),
    (354, 354, "camel"),
    (355, 364, "animal"),
    (365, 369, "ape"),
    (370, 382, "monkey"),
    (383, 384, "lemur"),
    (385, 386, "elephant"),
    (387, 387, "panda"),
    (388, 388, "bear"),
    (389, 397, "fish"),
    (948, 957, "fruit"),
    (936, 947, "vegetable"),
    (970, 980, "landscape"),
    (981, 983, "person"),
    (984, 986, "flower"),
    (991, 997, "mushroom"),
)

# Artefacts stand by the alphabet.
_KIND_MEMBERS: dict[str, tuple[int, ...]] = {
    "aircraft": (404, 405, 417, 895, 908),
    "ball": (429, 430, 522, 574, 722, 768, 805, 852, 890),
    "bed": (516, 520, 564),
    "bicycle": (444, 671, 870, 880),
    "boat": (449, 472, 484, 554, 576, 625, 693, 814, 871, 914),
    "book": (917, 921),
    "bottle": (440, 720, 737, 898, 907),
    "bridge": (821, 839, 888),
    "building": (
        *(425, 442, 483, 497, 498, 500, 538, 580, 624, 634, 660, 663, 668, 698, 727, 743, 762),
        *(832, 853, 858, 915),
    ),
    "bus": (654, 779, 874),
    "camera": (732, 759),
    "car": (407, 436, 468, 511, 609, 627, 656, 661, 751, 817),
    "cart": (428, 603, 612, 690, 791),
    "chair": (423, 559, 765, 857),
    "clock": (409, 530, 604, 835, 892),
    "clothing": (
        *(399, 400, 411, 445, 459, 474, 501, 568, 578, 601, 608, 610, 614, 617, 638, 639, 652),
        *(655, 689, 697, 735, 775, 824, 834, 841, 842, 869, 887),
    ),
    "computer": (508, 527, 590, 605, 620, 664, 673, 681),
    "container": (412, 427, 463, 478, 519, 588, 653, 692, 738, 756, 876, 883),
    "cup": (441, 504, 572, 647, 968),
    "drink": (966, 967, 969),
    "fence": (489, 716, 825, 912),
    "food": (924, 925, 926, *range(930, 936), 959, 961, 962, 963, 964, 965),
    "dessert": (927, 928, 929, 960),
    "furniture": (453, 492, 493, 495, 526, 532, 548, 703, 736, 831, 894),
    "hat": (433, 439, 452, 515, 518, 560, 667, 715, 793, 808),
    "kitchen appliance": (521, 534, 550, 651, 760, 766, 827, 859, 891),
    "kitchen tool": (
        473,
        499,
        503,
        512,
        544,
        567,
        618,
        659,
        809,
        813,
        828,
        849,
        868,
        909,
        910,
        923,
    ),
    "lamp": (607, 619, 818, 846, 862),
    "landmark": (437, 649, 682, 863, 873, 900),
    "motorcycle": (665, 670),
    "musical instrument": (
        *(401, 402, 420, 432, 486, 494, 513, 541, 546, 558, 566, 577, 579, 593, 594, 641, 642),
        *(683, 684, 687, 699, 776, 822, 875, 881, 889),
    ),
    "pen": (418, 563, 749),
    "ship": (403, 510, 628, 724, 780, 833, 913),
    "shoe": (502, 514, 630, 770, 774),
    "shop": (415, 424, 454, 467, 509, 582, 788, 860, 865),
    "sports equipment": (416, 422, 543, 602, 702, 746, 747, 752, 795),
    "telephone": (487, 528, 707),
    "tool": (477, 491, 587, 596, 621, 677, 696, 714, 726, 730, 740, 783, 784, 792),
    "train": (466, 547, 565, 705, 820, 829),
    "truck": (555, 569, 675, 717, 734, 803, 864, 867),
    "vehicle": (408, 450, 537, 561, 573, 575, 586, 595, 757, 802, 847, 856, 866),
    "weapon": (413, 456, 471, 657, 744, 763, 764),
    "plant": (988, 989, 990),
}

# Names that torchvision cuts so short, or that plain English uses so differently, that the kind
# does not mend them: another name that ImageNet itself lists for the class, or the missing noun.
_CLEARER_NAMES: dict[int, str] = {
    412: "trash can",
    436: "station wagon",
    437: "lighthouse",
    458: "brass memorial plaque",
    468: "taxi",
    517: "construction crane",
    552: "feather scarf",
    606: "clothes iron",
    639: "one-piece swimsuit",
    664: "computer monitor",
    673: "computer mouse",
    726: "carpenter's plane",
    733: "wooden pole",
    738: "flowerpot",
    751: "race car",
    769: "ruler",
    800: "slot machine",
    836: "dark glasses",
    848: "tape player",
    882: "vacuum cleaner",
    970: "mountain",
    989: "rose hip",
    998: "ear of corn",
}


@cache
def class_names() -> tuple[str, ...]:
    """Name the classes of ImageNet-1k in the order of a classifier's outputs.

    Returns:
        1,000 names as torchvision has them, a few replaced by clearer ones.
    """
    # It takes longer to import than torch, and a model that was built needs none of it.
    from torchvision.models import ResNet50_Weights  # noqa: PLC0415

    names = list(ResNet50_Weights.IMAGENET1K_V1.meta["categories"])
    for index, name in _CLEARER_NAMES.items():
        names[index] = name
    return tuple(names)


@cache
def class_kinds() -> tuple[str | None, ...]:
    """Return what kind of thing each class is ("dog", "musical instrument"), None where unclear."""
    kinds: list[str | None] = [None] * NUM_CLASSES
    for first, last, kind in _KIND_RANGES:
        kinds[first : last + 1] = [kind] * (last + 1 - first)
    for kind, members in _KIND_MEMBERS.items():
        for index in members:
            kinds[index] = kind
    return tuple(kinds)


@cache
def class_texts() -> tuple[str, ...]:
    """Describe each class as a caption would: "a photo of a Samoyed, a dog".

    Returns:
        1,000 sentences, in the order of class_names().
    """
    return tuple(
        f"a photo of {_with_article(name)}" + (f", {_with_article(kind)}" if kind else "")
        for name, kind in zip(class_names(), class_kinds(), strict=True)
    )


# Of these kinds one does not say "a".
_UNCOUNTABLE = frozenset({"clothing", "food", "furniture", "sports equipment", "coral"})


def _with_article(noun: str) -> str:
    if noun in _UNCOUNTABLE:
        return noun
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"
