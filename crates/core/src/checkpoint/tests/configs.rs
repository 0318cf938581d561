use super::*;

#[test]
fn the_fields_that_matter_are_read() {
    let config = Config::parse(
        br#"{"model_type":"llama","architectures":["LlamaForCausalLM"],
             "tie_word_embeddings":false,"quantization_config":null,"rope_theta":5e5}"#,
    )
    .unwrap();
    assert_eq!(config.tie_word_embeddings, Some(false));
    assert_eq!(config.model_type.as_deref(), Some("llama"));
    assert_eq!(config.architectures, ["LlamaForCausalLM"]);
    assert_eq!(config.quantisation, None);
    assert_eq!(config.get("rope_theta").unwrap(), 5e5);
}

#[test]
fn what_the_top_lacks_is_looked_up_in_text_config() {
    let config = Config::parse(
        br#"{"text_config":{"tie_word_embeddings":true,"hidden_size":2,
             "quantization_config":{"quant_method":"fp8"}},"hidden_size":1}"#,
    )
    .unwrap();
    assert_eq!(config.tie_word_embeddings, Some(true));
    assert_eq!(config.get("hidden_size").unwrap(), 1);
    assert_eq!(config.quantisation.as_deref(), Some("fp8"));
}

#[test]
fn the_numbers_that_python_writes_are_read_as_texts() {
    let config = Config::parse(
        br#"{"limit":[0.0,Infinity],"low":-Infinity,"x":NaN,"text":"an \"Infinity\\"}"#,
    )
    .unwrap();
    assert_eq!(
        config.raw,
        serde_json::json!({
            "limit": [0.0, "Infinity"], "low": "-Infinity", "x": "NaN",
            "text": "an \"Infinity\\",
        })
    );
}

#[test]
fn what_is_no_object_is_refused() {
    for (json, says) in [
        (&b"[]"[..], "expected a JSON object"),
        (b"{\"a\":}", "not valid JSON"),
        (b"", "not valid JSON"),
        (b"{\"a\":\"\\", "not valid JSON"),
        (b"{\"a\":\"\xff\"}", "not valid JSON"),
    ] {
        let error = Config::parse(json).unwrap_err();
        assert!(error.to_string().starts_with(says), "{error}");
    }
}
