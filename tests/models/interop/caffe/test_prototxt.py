import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnets.models.interop.caffe.protobuf import FormatError
from resnets.models.interop.caffe.prototxt import MAX_CHARACTERS, dump, parse
from resnets.models.interop.caffe.schema import NET


def test_all_forms_of_the_text_format_are_read():
    text = """
        name: 'a "net"' "work"  # the rest of the line is a comment
        input: "data" input_dim: [1, 3, 224, 224];
        layer { name: "c\\"1" type: "Convolution", bottom: "data" top: "c1"
          convolution_param: < num_output: 64 bias_term: false kernel_size: [7, 7]
            weight_filler { type: "xavier" std: 0.01 anything [ { a: -1.5e-3f } ] } engine: CUDNN >
          param { lr_mult: 1 } }
        layer { pooling_param { pool: AVE global_pooling: true } batch_norm_param { eps: 1e-4 } }
    """
    assert parse(text, NET) == {
        "name": ['a "net"work'],
        "input": ["data"],
        "input_dim": [1, 3, 224, 224],
        "layer": [
            {
                "name": ['c"1'],
                "type": ["Convolution"],
                "bottom": ["data"],
                "top": ["c1"],
                "convolution_param": [{"num_output": [64], "bias_term": [False], "kernel_size": [7, 7]}],
            },
            {"pooling_param": [{"pool": ["AVE"], "global_pooling": [True]}], "batch_norm_param": [{"eps": [1e-4]}]},
        ],
    }


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("layer {", "line 1: a field's name is expected"),
        ("\n\nlayer { name 'a' }", "line 3: a colon or a brace"),
        ("name: 3", "cannot be '3'"),
        ("input_dim: 1.5", "input_dim cannot be '1.5'"),
        ("input_dim: 99999999999999999999", "cannot be"),
        ("layer { pooling_param { pool: MEDIAN } }", "pool cannot be 'MEDIAN'"),
        ("layer { convolution_param { deformable_group: 4 } }", "ConvolutionParameter has no field 'deformable_group'"),
        ("name { }", "name is a value"),
        ("layer: 3", "layer cannot be"),
        ("name: 'a", 'line 1: "\'" is out of place'),
        ("name: [ 'a' 'b' 3 ]", "a comma or ]"),
        ("}", "a field's name is expected"),
        ("layer { batch_norm_param { eps: 1e99 } }", "eps cannot be"),
        ("a { " * 30 + "}" * 30, "nested more than"),
        ("a: " + "1" * MAX_CHARACTERS, "characters"),
    ],
)
def test_damage_is_named_with_its_line(text, reason):
    with pytest.raises(FormatError) as caught:
        parse(text, NET)
    assert reason in str(caught.value)


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "name": st.lists(st.text(st.characters(exclude_characters="\n\r", codec="utf-8")), max_size=1),
                "bottom": st.lists(st.text("abc/_0", min_size=1), max_size=3),
                "convolution_param": st.lists(
                    st.fixed_dictionaries(
                        {
                            "num_output": st.lists(st.integers(-(2**63) + 1, 2**63 - 1), min_size=1),
                            "bias_term": st.lists(st.booleans(), min_size=1),
                        }
                    ),
                    max_size=1,
                ),
                "dropout_param": st.just([{"dropout_ratio": [0.1]}]),
            }
        ),
        min_size=1,
    )
)
def test_what_is_written_comes_back(layers):
    layers = [{name: entries for name, entries in layer.items() if entries} for layer in layers]
    assert parse(dump({"layer": layers}, NET), NET) == {"layer": layers}


@given(st.text("abc{}<>[]:,;\"'#\\ \n1-.", max_size=60))
def test_any_text_is_read_or_refused(text):
    try:
        values = parse(text, NET)
    except FormatError:
        return
    assert isinstance(values, dict)
