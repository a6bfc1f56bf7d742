import pytest
import torch
from torch.testing import assert_close

from clipbert.checkpoints.mini.imagenet import class_kinds, class_names, class_texts
from clipbert.model.recall import RecallEncoder, pool_images, sentence_vectors


def encoder_of(vectors, num_likeliest):
    encoder = RecallEncoder(
        num_classes=len(vectors), dim=vectors.shape[1], num_likeliest=num_likeliest
    )
    encoder.class_vectors.copy_(vectors)
    return encoder


def test_a_clip_is_the_mixture_of_its_likeliest_classes():
    encoder = encoder_of(torch.eye(4), num_likeliest=2)
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().reshape(1, 1, 4)

    vectors = encoder(logits)

    expected = torch.tensor([[0.5, 0.3, 0.0, 0.0]])
    assert_close(vectors, expected / expected.norm())


def test_frames_of_a_clip_count_by_probability_and_not_by_logit():
    encoder = encoder_of(torch.eye(2), num_likeliest=2)
    frames = torch.tensor([[0.9, 0.1], [0.1, 0.9]])
    scales = torch.tensor([[5.0], [-3.0]])  # softmax does not see a constant

    vectors = encoder((frames.log() + scales).unsqueeze(0))

    assert_close(vectors, torch.full((1, 2), 0.5**0.5))


def test_clip_vectors_have_length_one_and_are_float32_whatever_the_logits_are():
    encoder = encoder_of(torch.randn(30, 8, generator=torch.manual_seed(0)), num_likeliest=5)

    vectors = encoder(torch.randn(7, 2, 30).bfloat16())

    assert vectors.shape == (7, 8)
    assert vectors.dtype == torch.float32
    assert_close(vectors.norm(dim=1), torch.ones(7))


def test_more_likeliest_classes_than_classes_are_refused():
    with pytest.raises(ValueError, match="1 to 4"):
        RecallEncoder(num_classes=4, dim=2, num_likeliest=5)


def test_pooling_leaves_the_letterbox_out():
    features = torch.zeros(2, 1, 4, 4)
    features[0, :, :2, :] = 3.0  # a wide frame fills the two upper rows
    features[1, :, :, :1] = 5.0  # a tall frame fills the left column
    sizes = [(50, 100), (400, 100)]

    pooled = pool_images(features, sizes)

    assert pooled.tolist() == [[3.0], [5.0]]


def test_pooling_a_square_frame_is_the_plain_mean():
    features = torch.randn(1, 6, 14, 14, generator=torch.manual_seed(0))

    assert_close(pool_images(features, [(480, 480)]), features.mean(dim=(2, 3)))


@pytest.mark.parametrize("size", [(1, 5), (1080, 1920), (1920, 1080), (160, 214), (5, 1)])
def test_pooling_always_finds_a_part_of_the_image(size):
    pooled = pool_images(torch.ones(1, 3, 2, 2), [size])

    assert pooled.tolist() == [[1.0, 1.0, 1.0]]


def test_pooling_needs_a_size_for_each_frame():
    with pytest.raises(ValueError, match="2 feature maps"):
        pool_images(torch.ones(2, 3, 2, 2), [(1, 1)])


def test_sentence_vectors_ignore_padding():
    hidden = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [9.0, 9.0]]])
    mask = torch.tensor([[1, 1, 0]])

    assert_close(sentence_vectors(hidden, mask), torch.full((1, 2), 0.5**0.5))


def test_every_class_has_its_own_text():
    texts = class_texts()

    assert len(texts) == len(class_names()) == len(class_kinds()) == 1000
    assert len(set(texts)) == 1000


def test_class_texts_name_the_class_with_its_kind():
    texts = class_texts()

    assert texts[258] == "a photo of a Samoyed, a dog"
    assert texts[87] == "a photo of an African grey, a parrot"
    assert texts[671] == "a photo of a mountain bike, a bicycle"
    assert texts[970] == "a photo of a mountain, a landscape"
    assert texts[508] == "a photo of a computer keyboard, a computer"


@pytest.mark.parametrize(
    ("index", "kind"),
    [(0, "fish"), (24, "bird"), (151, "dog"), (268, "dog"), (281, "cat"), (285, "cat"),
     (286, "big cat"), (335, "squirrel"), (402, "musical instrument"), (889, "musical instrument"),
     (817, "car"), (916, None)],
)  # fmt: skip
def test_kinds_meet_the_classes_they_are_meant_for(index, kind):
    assert class_kinds()[index] == kind
