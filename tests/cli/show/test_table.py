from cli.show.table import display_width, one_line, table_lines

ID = "0198c0df-5555-7aaa-8bbb-1234567890ab"


def test_a_row_is_one_line_however_long_where_no_terminal_is():
    lines = table_lines(["id", "why"], [(ID, "word " * 100), (ID, "b")])

    assert len(lines) == 3
    assert lines[1] == f"{ID}  {('word ' * 100).rstrip()}"


def test_columns_are_aligned_and_numbers_stand_to_the_right():
    assert table_lines(["name", "size#"], [("a", "1"), ("long name", "1000")]) == [
        "name       size",
        "a             1",
        "long name  1000",
    ]


def test_a_terminal_folds_the_widest_column_and_no_id():
    lines = table_lines(["id", "why"], [(ID, "the file is not one that can be read")], width=60)

    assert lines[1].startswith(f"{ID}  the file is not one")
    assert all(display_width(line) <= 60 for line in lines)
    assert " ".join(" ".join(lines[1:]).split()) == f"{ID} the file is not one that can be read"


def test_a_word_longer_than_its_column_is_cut_and_loses_nothing():
    lines = table_lines(["name"], [("x" * 50,)], width=20)

    assert "".join(lines[1:]) == "x" * 50


def test_letters_of_two_columns_count_twice():
    assert table_lines(["a", "b"], [("影片", "x"), ("ab", "y")])[1:] == ["影片  x", "ab    y"]


def test_a_name_cannot_move_the_cursor_or_end_the_line():
    assert one_line("a\x1b[2J\nb\u202ec") == "a [2J b c"
    assert len(table_lines(["a"], [("two\nlines",)])) == 2


def test_states_are_coloured_on_a_terminal():
    lines = table_lines(["state"], [("failed",)], width=80, colours={"failed": "red"})

    assert lines[1] == "\x1b[31mfailed\x1b[0m"
