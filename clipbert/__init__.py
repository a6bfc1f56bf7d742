"""CLIPBERT as a library: clips of a video and a text in, scores, answers and evidence out.

Shape letters, used in every module with no other meaning:

    B  videos in a batch, each with one text       h w  grid height and width (H/64 in the paper)
    K  clips per video (the paper's N)             V    visual tokens of a clip: h * w
    T  frames per clip                             L    text tokens, padded
    H W  frame height and width, pixels            D    hidden size (768 in the paper)
    3  colour channels, RGB                        A    answers the head chooses from

and in a few places:

    N  rows of a batch: clips, texts, pairs of    M  clips that are held, of which rows take some
       both or frames, as the line says           Q  texts that each meet the same clips
    S  side of a square frame, pixels             R  length of a recall vector
    C  channels of a CNN's features               O  outputs of a head: A of them for qa
    P  positions of a sequence: L, or L + V

The public names are listed in __init__.pyi, beside this file, and loaded when first used: importing
clipbert loads neither torch nor av.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
