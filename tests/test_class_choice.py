"""Which class is meant: by name or number, in the training data, in separate forget images and in the models."""

from pathlib import Path

import datasets
import numpy as np
import pytest
from conftest import save_classifier, tiny_vit
from PIL import Image

from hf_unlearn.cli.flags import ImageDataFlags
from hf_unlearn.cli.image_sets import image_sets
from hf_unlearn.cli.sample_classifier import sample_classifier
from hf_unlearn.cli.sample_flags import SampleFlags
from hf_unlearn.data.pairs import labels_of

TWELVE = [str(i) for i in range(12)]


def classes(folder: Path, *names: str, count: int = 2, start: int = 0) -> str:
    for k, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            shade = np.full((8, 8), start + 10 * k + i, dtype=np.uint8)
            Image.fromarray(shade).save(folder / name / f"{i}.png")
    return str(folder)


def chosen(train: str, conditional: bool = True, names=None, **flags):
    data = ImageDataFlags(train_data_dir=train, **flags)
    forget, retain = image_sets(data, 8, 1, conditional, names)
    return data, labels_of(forget), labels_of(retain)


def test_a_class_is_said_by_its_name_or_number(tmp_path, capsys):
    train = classes(tmp_path / "train", "owl", "cat", "dog")
    for said, number, words in (("dog", 1, "class dog (number 1)"), ("2", 2, "class owl (number 2)")):
        data, forget, retain = chosen(train, forget_class=[said])
        assert set(forget) == {number} and number not in retain and data.forgotten == words
        data.say_classes()
        assert capsys.readouterr().out == f"to forget: {words}\n"
    data, forget, _ = chosen(train, forget_class=["owl", "0"])
    assert set(forget) == {0, 2} and data.forgotten == "class owl (number 2), cat (number 0)"
    for said in ("fox", "3", "Cat"):
        with pytest.raises(ValueError, match=rf"class {said} is not in the data, which has cat \(0\), dog \(1\), owl"):
            chosen(train, forget_class=[said])


def test_a_name_that_is_another_classs_number_wins(tmp_path):
    """Sorted by name, the folder 10 has number 2."""
    train = classes(tmp_path / "train", *TWELVE)
    data, forget, _ = chosen(train, forget_class=["2"])
    assert set(forget) == {sorted(TWELVE).index("2")} == {4} and data.forgotten == "class 2 (number 4)"
    assert set(chosen(train, forget_class=["10"])[1]) == {2}


def test_separate_forget_images_have_the_training_datas_numbers(tmp_path):
    train = classes(tmp_path / "train", "cat", "dog", "owl")
    _, forget, retain = chosen(train, forget_data_dir=classes(tmp_path / "two", "owl", "dog", start=100))
    assert forget == [1, 1, 2, 2] and sorted(set(retain)) == [0, 1, 2]
    _, forget, _ = chosen(train, forget_data_dir=classes(tmp_path / "one", "owl", start=100))
    assert forget == [2, 2]
    classes(tmp_path / "own", "owl", start=100)
    _, forget, _ = chosen(train, forget_data_dir=str(tmp_path / "own/owl"))
    assert forget == [2, 2]
    with pytest.raises(ValueError, match="new: class fox is not in the data, which has cat.*name its folders like"):
        chosen(train, forget_data_dir=classes(tmp_path / "new", "dog", "fox", start=100))
    classes(tmp_path / "flat", "x", start=100)
    with pytest.raises(ValueError, match="have no classes.*put them in folders that are called as there"):
        chosen(train, forget_data_dir=str(tmp_path / "flat/x"))
    assert chosen(train, conditional=False, forget_data_dir=str(tmp_path / "flat/x"))[1] is None


def test_numbers_without_names(tmp_path):
    """A parquet file of plain numbers: folders are called by them, classes are said by them."""
    picture = Image.new("L", (8, 8))
    rows = datasets.Dataset.from_dict({"image": [picture] * 4, "label": [3, 3, 7, 11]})
    (tmp_path / "train").mkdir()
    rows.cast_column("image", datasets.Image()).to_parquet(tmp_path / "train/train.parquet")
    train = str(tmp_path / "train")
    data, forget, _ = chosen(train, forget_class=["7"])
    assert forget == [7] and data.forgotten == "class 7"
    assert chosen(train, forget_data_dir=classes(tmp_path / "some", "11", "3", start=100))[1] == [11, 11, 3, 3]
    with pytest.raises(ValueError, match="numbered classes without names"):
        chosen(train, forget_class=["cat"])
    assert chosen(train, forget_data_dir=classes(tmp_path / "gone", "4", start=100))[1] == [4, 4]
    with pytest.raises(ValueError, match="numbered classes without names; name its folders by class numbers"):
        chosen(train, forget_data_dir=classes(tmp_path / "other", "cat", start=100))


def test_a_model_that_names_its_classes_numbers_them(tmp_path):
    train = classes(tmp_path / "train", "cat", "dog")
    model = {"dog": 0, "owl": 5, "cat": 9}
    data, forget, retain = chosen(train, names=model, forget_class=["cat"])
    assert forget == [9, 9] and retain == [0, 0] and data.forgotten == "class cat (number 9)"
    assert chosen(train, names=model, forget_data_dir=classes(tmp_path / "one", "dog", start=100))[1] == [0, 0]
    assert chosen(train, names={"tench, Tinca tinca": 0}, forget_class=["dog"])[1] == [1, 1]
    with pytest.raises(ValueError, match="class 'dog' of the data is not in the model, which has 'cat'"):
        chosen(train, names={"cat": 0}, forget_class=["cat"])


def test_a_classifier_with_other_numbers_is_refused(tmp_path):
    train = classes(tmp_path / "train", "cat", "dog", "owl")
    for names, right in ((["cat", "dog", "owl", "fox"], True), (["dog", "cat", "owl", "fox"], False)):
        model = tiny_vit()
        model.config.id2label = dict(enumerate(names))
        model.config.label2id = {name: i for i, name in enumerate(names)}
        save_classifier(model, tmp_path / "judge")
        data = ImageDataFlags(train_data_dir=train, forget_class=["owl"])
        _, retain = image_sets(data, 8, 1)
        flags = SampleFlags(classifier_model_name_or_path=str(tmp_path / "judge"), eval_classes=["dog", "0"])
        if right:
            assert sample_classifier(flags, data, retain, True)[1] == [0, 1, 2]
        else:
            with pytest.raises(ValueError, match="class 'cat' has number 0 in the data, but 1 in"):
                sample_classifier(flags, data, retain, True)
