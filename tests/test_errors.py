import builtins
import sys

import pytest

from calibwrap import errors


def own_errors():
    return [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, Warning)
    ]


def test_the_docstring_draws_the_whole_tree():
    for kind in own_errors():
        assert kind.__name__ in errors.__doc__, f"{kind.__name__} is missing in the drawing"


def test_every_error_has_one_root():
    assert all(issubclass(kind, errors.CalibwrapError) for kind in own_errors())


@pytest.mark.parametrize("kind", [errors.QuestionError, errors.AmbiguousOptions, errors.PromptTooLong])
def test_bad_values_are_value_errors_too(kind):
    assert issubclass(kind, errors.InputError)
    assert issubclass(kind, ValueError)


def test_a_missing_package_names_feature_and_extra():
    with pytest.raises(errors.MissingExtra, match=r"drawing curves.*no_such_package_.*'calibwrap\[plot\]'") as caught:
        errors.need("no_such_package_.part", feature="drawing curves", extra="plot")
    assert isinstance(caught.value, ImportError)
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_a_broken_installation_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "half_installed.py").write_text("import its_own_missing_dependency\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="its_own_missing_dependency") as caught:
        errors.need("half_installed", feature="anything", extra="hf")
    assert not isinstance(caught.value, errors.MissingExtra)


def test_an_import_error_inside_a_present_package_goes_through(tmp_path, monkeypatch):
    (tmp_path / "wrong_version.py").write_text("raise ImportError('needs another version')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match="needs another version") as caught:
        errors.need("wrong_version", feature="anything", extra="hf")
    assert type(caught.value) is builtins.ImportError


def test_a_present_package_is_returned():
    assert errors.need("json", feature="reading", extra="data") is sys.modules["json"]
