//! Refuses texts that would exhaust the stack.
//!
//! Parser, optimiser and evaluator all recurse: a text of a hundred thousand opening brackets, or an
//! expression of a hundred thousand terms, would end the process and not just the query. So brackets
//! and operators are counted before anything is parsed. The count is coarse: it knows strings, IRIs
//! and comments, and errs on the side of counting.

use super::error::QueryError;

/// Brackets within brackets.
const DEPTH_MAX: usize = 64;

/// Operators and keywords that nest the algebra one level deeper each. Measured: a chain of this
/// length is parsed, evaluated and dropped on a stack of [`super::STACK_BYTES`] without optimisation.
const OPERATORS_MAX: usize = 250;

/// Keywords that put what precedes them one level deeper.
const NESTING: [&str; 6] = ["filter", "bind", "union", "optional", "minus", "let"];

/// Counts brackets and operators of a query or an update.
pub fn check(text: &str) -> Result<(), QueryError> {
    let bytes = text.as_bytes();
    let (mut depth, mut operators, mut i) = (0usize, 0usize, 0usize);
    // Where the braces of INSERT DATA or DELETE DATA opened: facts do not nest.
    let mut data: Option<usize> = None;
    while i < bytes.len() {
        match bytes[i] {
            b'#' => i = end_of_line(bytes, i),
            quote @ (b'"' | b'\'') => i = end_of_string(bytes, i, quote),
            b'<' => i = end_of_iri(bytes, i).unwrap_or(i),
            b'(' | b'{' | b'[' => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return Err(too_deep(text, i, format!("brackets nest deeper than {DEPTH_MAX}")));
                }
                operators += usize::from(bytes[i] == b'{' && data.is_none());
            }
            b')' | b'}' | b']' => {
                depth = depth.saturating_sub(1);
                data = data.filter(|opened| depth > *opened);
            }
            b'|' | b'&' | b'!' | b'^' | b'/' | b'+' | b'*' | b'=' if data.is_none() => operators += 1,
            b'-' if data.is_none() && !follows_name(bytes, i) => operators += 1,
            c if c.is_ascii_alphabetic() && !follows_name(bytes, i) => {
                let word = bytes[i..].iter().take_while(|c| c.is_ascii_alphabetic()).count();
                let text = &text[i..i + word];
                if text.eq_ignore_ascii_case("data") {
                    data = Some(depth);
                }
                operators += usize::from(NESTING.iter().any(|k| text.eq_ignore_ascii_case(k)));
                i += word - 1;
            }
            _ => {}
        }
        if operators > OPERATORS_MAX {
            return Err(too_deep(text, i, format!("there are more than {OPERATORS_MAX} operators and groups")));
        }
        i += 1;
    }
    Ok(())
}

fn too_deep(text: &str, at: usize, message: String) -> QueryError {
    let before = &text.as_bytes()[..at.min(text.len())];
    let line = before.iter().filter(|c| **c == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|c| **c != b'\n').count() + 1;
    QueryError::Syntax { message: format!("{message}; use VALUES for long lists"), at: Some((line, column)) }
}

fn follows_name(bytes: &[u8], i: usize) -> bool {
    i > 0 && (bytes[i - 1].is_ascii_alphanumeric() || matches!(bytes[i - 1], b'_' | b'-' | b':' | b'?' | b'$' | b'@'))
}

fn end_of_line(bytes: &[u8], from: usize) -> usize {
    bytes[from..].iter().position(|c| *c == b'\n').map_or(bytes.len(), |n| from + n)
}

fn end_of_string(bytes: &[u8], from: usize, quote: u8) -> usize {
    let long = bytes[from..].starts_with(&[quote; 3]);
    let mut i = from + if long { 3 } else { 1 };
    while i < bytes.len() {
        match bytes[i] {
            b'\\' => i += 1,
            b'\n' if !long => return i,
            c if c == quote && !long => return i,
            c if c == quote && bytes[i..].starts_with(&[quote; 3]) => return i + 2,
            _ => {}
        }
        i += 1;
    }
    bytes.len()
}

/// An IRI holds no blanks and no angle brackets; otherwise `<` is less-than.
fn end_of_iri(bytes: &[u8], from: usize) -> Option<usize> {
    let n = bytes[from + 1..].iter().position(|c| matches!(c, b'<' | b'>' | b'"' | b'{' | b'}' | b'|' | 0..=b' '))?;
    (bytes[from + 1 + n] == b'>').then_some(from + 1 + n)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(n: usize) -> String {
        format!("ASK {{ FILTER({}1) }}", "?x || ".repeat(n))
    }

    #[test]
    fn long_and_deep_texts_are_refused_with_their_place() {
        let deep = format!("ASK\n{{ FILTER{}1{} }}", "(".repeat(100), ")".repeat(100));
        let Err(QueryError::Syntax { at, .. }) = check(&deep) else { panic!("not refused") };
        assert_eq!(at, Some((2, 9 + 63)));
        assert!(check(&chain(100_000)).is_err());
        assert!(check(&format!("ASK {{ FILTER({}1) }}", "!".repeat(100_000))).is_err());
        assert!(check(&format!("INSERT DATA {{ <x:s> <x:p> 1 }} ; {}", chain(1_000))).is_err());
        assert!(check(&format!("ASK {{ {} }}", "{} UNION ".repeat(100_000))).is_err());
        assert!(check(&format!("ASK {{ {} }}", "OPTIONAL {} ".repeat(100_000))).is_err());
        assert!(check(&format!("ASK {{ {} }}", "FILTER(?x) ".repeat(100_000))).is_err());
        assert!(check(&format!("ASK {{ ?s {}<p> ?o }}", "^".repeat(100_000))).is_err());
    }

    #[test]
    fn what_only_looks_deep_is_taken() {
        let text = "(".repeat(1000) + &"|".repeat(2000);
        for query in [
            format!("ASK {{ ?s ?p \"{text}\" }}"),
            format!("ASK {{ ?s ?p '''{text}\n\\''''' }}"),
            format!("#{text}\nASK {{}}"),
            format!("ASK {{ ?s ?p <http://x/{}> }}", "/+*".repeat(2000)),
            format!("ASK {{ VALUES ?x {{ {} }} }}", "ex:a-b-c ".repeat(10_000)),
            format!("INSERT DATA {{ {} }}", "GRAPH <x:g> { <x:s> <x:p> -1, '''a''' ^^ <x:t> } ".repeat(2_000)),
            format!("ASK {{ VALUES (?x ?y) {{ {} }} }}", "(1 2)".repeat(10_000)),
        ] {
            assert_eq!(check(&query), Ok(()), "{}", &query[..40]);
        }
    }

    #[test]
    fn what_is_taken_fits_on_a_small_stack() {
        let n = OPERATORS_MAX / 2 - 10;
        let queries = [
            chain(n),
            format!("ASK {{ FILTER({}?x) }}", "!".repeat(OPERATORS_MAX - 10)),
            format!("ASK {{ FILTER({}1) }}", "1 + ".repeat(OPERATORS_MAX - 10)),
            format!("ASK {{ {} {{}} }}", "{} UNION ".repeat(n)),
            format!("ASK {{ {} }}", "OPTIONAL {} ".repeat(n)),
            format!("ASK {{ {} }}", "FILTER(1) ".repeat(OPERATORS_MAX - 10)),
            format!("ASK {{ ?s {}<p> ?o }}", "<p>/".repeat(OPERATORS_MAX - 10)),
            format!("ASK {{ FILTER{}1{} }}", "(".repeat(DEPTH_MAX - 1), ")".repeat(DEPTH_MAX - 1)),
            format!("ASK {}{}", "{".repeat(DEPTH_MAX), "}".repeat(DEPTH_MAX)),
        ];
        for query in queries {
            assert_eq!(check(&query), Ok(()), "{}", &query[..40]);
            super::super::testing::on_a_small_stack(query);
        }
    }
}
