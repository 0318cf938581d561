//! The string literals of a Rust file: a small lexer, as SQL hides in strings
//! and not in lines.

/// A string literal.
#[derive(Debug, PartialEq)]
pub(super) struct Literal {
    /// The line on which it begins.
    pub(super) line: usize,
    /// What it says, with line breaks for `\n` and without continued ends of lines.
    pub(super) text: String,
}

/// Every string literal of `source`; none from comments.
pub(super) fn literals(source: &str) -> Vec<Literal> {
    let mut found = Vec::new();
    let mut rest = source;
    let line_of = |rest: &str| source[..source.len() - rest.len()].matches('\n').count() + 1;
    while let Some(first) = rest.chars().next() {
        if rest.starts_with("//") {
            rest = &rest[rest.find('\n').unwrap_or(rest.len())..];
        } else if rest.starts_with("/*") {
            rest = rest.find("*/").map_or("", |end| &rest[end + 2..]);
        } else if let Some(quote) = char_literal(rest) {
            rest = &rest[quote..];
        } else if let Some(hashes) = raw_start(rest) {
            let line = line_of(rest);
            let body = &rest[hashes + 2..];
            let close = format!("\"{}", "#".repeat(hashes));
            let end = body.find(&close).unwrap_or(body.len());
            let text = body[..end].to_owned();
            found.push(Literal { line, text });
            rest = body.get(end + close.len()..).unwrap_or("");
        } else if first == '"' {
            let line = line_of(rest);
            let (text, after) = unescape(&rest[1..]);
            found.push(Literal { line, text });
            rest = after;
        } else {
            // A whole word at once: the `r` of `for"…"` starts no raw string.
            let word = rest
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            rest = &rest[word.max(first.len_utf8())..];
        }
    }
    found
}

/// The length of the character literal at the start, if there is one. A lifetime
/// is none.
fn char_literal(rest: &str) -> Option<usize> {
    let body = rest.strip_prefix('\'')?;
    if let Some(escaped) = body.strip_prefix('\\') {
        let after = escaped.chars().next()?.len_utf8();
        return Some(2 + after + escaped[after..].find('\'')? + 1);
    }
    let length = body.chars().next()?.len_utf8();
    body[length..].starts_with('\'').then_some(length + 2)
}

/// The number of hashes of the raw string at the start, if there is one.
fn raw_start(rest: &str) -> Option<usize> {
    let body = rest.strip_prefix('r')?;
    let hashes = body.len() - body.trim_start_matches('#').len();
    body[hashes..].starts_with('"').then_some(hashes)
}

/// The text up to the closing quote, and what follows the quote.
fn unescape(body: &str) -> (String, &str) {
    let mut text = String::new();
    let mut rest = body;
    while let Some(next) = rest.chars().next() {
        rest = &rest[next.len_utf8()..];
        match next {
            '"' => return (text, rest),
            '\\' => {
                let escaped = rest.chars().next().unwrap_or_default();
                rest = &rest[escaped.len_utf8().min(rest.len())..];
                match escaped {
                    'n' => text.push('\n'),
                    '\n' => rest = rest.trim_start(),
                    other => text.push(other),
                }
            }
            other => text.push(other),
        }
    }
    (text, "")
}

#[test]
fn strings_are_found_and_comments_and_characters_are_not() {
    let source = concat!(
        "// \"no\"\nlet a = \"one\\ntwo \\\n   three\";\n",
        "/* \"no\" */ let b: &'a str = r#\"ra\"w\"#; let c = '\"'; let d = '\\'';\n",
        "for\"four\""
    );
    let texts: Vec<_> = literals(source)
        .into_iter()
        .map(|literal| (literal.line, literal.text))
        .collect();
    let expected = [(2, "one\ntwo three"), (4, "ra\"w"), (5, "four")];
    assert_eq!(texts, expected.map(|(line, text)| (line, text.to_owned())));
}
