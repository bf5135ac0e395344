use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn typed(lexical: &str, name: &str) -> Term {
    Term::Literal { lexical: lexical.into(), datatype: format!("{XSD}{name}") }
}

fn lang(lexical: &str, language: &str) -> Term {
    Term::LangLiteral { lexical: lexical.into(), language: language.into(), direction: None }
}

#[track_caller]
fn is_inline(term: &Term) {
    let id = TermId::of(term);
    assert!(id.is_inline(), "{term:?} has id {id}");
    assert_eq!(id.inline().as_ref(), Some(term));
}

#[track_caller]
fn is_hashed(term: &Term) {
    let id = TermId::of(term);
    assert!(!id.is_inline(), "{term:?} has id {id}");
    assert_eq!(id.inline(), None);
}

#[test]
fn canonical_forms_are_inline_and_come_back_to_the_letter() {
    for (name, texts) in [
        ("string", &["", "a", "sixteen bytes ok", "a\0b", "\0a", "日本語"][..]),
        ("boolean", &["true", "false"]),
        (
            "integer",
            &["0", "-1", "170141183460469231731687303715884105727", "-170141183460469231731687303715884105728"],
        ),
        ("byte", &["-128", "127"]),
        ("unsignedLong", &["18446744073709551615"]),
        ("negativeInteger", &["-1"]),
        ("positiveInteger", &["1"]),
        ("decimal", &["0", "0.0", "-0.5", "1.50", "1.5", "3", "-3.000000000000000001", "600000000000000000"]),
        (
            "double",
            &["0.0E0", "-0.0E0", "1.5E0", "1.5", "1", "-1.0E-7", "INF", "-INF", "NaN", "1.7976931348623157E308"],
        ),
        ("float", &["0.0E0", "0.1", "1.0E-1", "INF", "NaN", "3.4028235E38"]),
        ("dateTime", &["2020-02-29T23:59:59Z", "0001-01-01T00:00:00", "9999-12-31T23:59:59.999999999-14:00"]),
        ("dateTime", &["1969-12-31T23:59:59.5+05:30", "2000-01-01T00:00:00+14:00"]),
        ("date", &["1970-01-01", "2000-02-29Z", "1900-02-28-01:30", "9999-12-31"]),
        ("gYearMonth", &["1999-12", "1999-01Z"]),
        ("gYear", &["0001", "2024", "2024+01:00"]),
    ] {
        texts.iter().for_each(|text| is_inline(&typed(text, name)));
    }
    is_inline(&lang("", "en"));
    is_inline(&lang("fourteen bytes", "de"));
    is_inline(&lang("x", "gsw"));
    is_inline(&lang("x", "zzz"));
}

#[test]
fn other_forms_are_hashed_under_a_type_byte_of_their_datatype() {
    for (name, texts) in [
        ("string", &["a\0", "\0", "seventeen bytes !"][..]),
        ("boolean", &["1", "0", "True", "", " true"]),
        ("integer", &["01", "+1", "-0", "", "-", "1.0", " 1", "٣", "170141183460469231731687303715884105728"]),
        ("byte", &["128", "-129"]),
        ("unsignedByte", &["-1", "256"]),
        ("negativeInteger", &["0"]),
        ("positiveInteger", &["0"]),
        (
            "decimal",
            &["1.", ".5", "-0", "-0.0", "01.5", "+1.5", "1.0000000000000000001", "1e5", "700000000000000000", "--1"],
        ),
        ("double", &["1.50", "1e0", "1.0e0", "1E0", "inf", "nan", "+INF", "01", "1.0E400", "infinity", "", "1.5E+0"]),
        ("float", &["0.10", "16777217", "1E0", "Inf"]),
        (
            "dateTime",
            &["2020-02-30T00:00:00", "2020-01-01T24:00:00", "2020-01-01T00:00:00.50", "2020-01-01T00:00:00+00:00"],
        ),
        ("dateTime", &["2020-01-01", "2020-01-01T00:00:60", "2020-01-01T00:00:00+14:01", "2020-01-01T00:00:00."]),
        (
            "dateTime",
            &["-0044-03-15T00:00:00", "12020-01-01T00:00:00", "0000-01-01T00:00:00", "2020-1-1T00:00:00", "Z"],
        ),
        ("date", &["1900-02-29", "2020-13-01", "2020-00-01", "2020-01-00", "2020-01-01T00:00:00", "é+01:00"]),
        ("gYear", &["0", "99", "02024", "-0001", "0000"]),
        ("gYearMonth", &["2020-13", "2020"]),
    ] {
        for text in texts {
            let term = typed(text, name);
            is_hashed(&term);
            let (even, _) = DATATYPES.iter().find(|(_, n)| *n == name).unwrap();
            assert_eq!(TermId::of(&term).0[0], even + 1, "{term:?}");
        }
    }
    is_hashed(&lang("fifteen bytes !", "en"));
    is_hashed(&lang("a\0", "en"));
    is_hashed(&lang("colour", "en-gb"));
    is_hashed(&lang("a", "x"));
    is_hashed(&Term::LangLiteral { lexical: "a".into(), language: "en".into(), direction: Some(Direction::Ltr) });
    is_hashed(&Term::Literal { lexical: "a".into(), datatype: "http://example.org/t".into() });
    is_hashed(&Term::Iri("x:y".into()));
    is_hashed(&Term::Blank("b".into()));
}

#[test]
fn type_bytes_are_distinct_and_none_is_that_of_the_default_graph() {
    let mut bytes: Vec<u8> = DATATYPES.iter().map(|(byte, _)| *byte).collect();
    bytes.push(LANG);
    assert!(bytes.iter().all(|byte| byte % 2 == 0 && (STRING..END).contains(byte)));
    bytes.extend([0, IRI, BLANK, TRIPLE, OTHER, LTR, RTL]);
    let count = bytes.len();
    bytes.sort();
    bytes.dedup();
    assert_eq!(bytes.len(), count);
    assert_eq!(TermId::DEFAULT_GRAPH.inline(), None);
}

#[test]
fn order_of_bytes_is_order_of_values() {
    for (name, ascending) in [
        ("string", &["", "a", "a\0b", "aa", "b", "é"][..]),
        ("boolean", &["false", "true"]),
        ("integer", &["-170141183460469231731687303715884105728", "-10", "-9", "0", "2", "10", "99999999999999999999"]),
        ("decimal", &["-10", "-1.50", "-0.5", "0", "0.0", "0.000000000000000001", "0.5", "0.50", "1.5", "10.0"]),
        (
            "double",
            &["-INF", "-1.0E10", "-1.5", "-1.0E-300", "-0.0E0", "0.0E0", "1.0E-300", "1.5E0", "2", "INF", "NaN"],
        ),
        ("float", &["-INF", "-1.5", "0.0E0", "1.0E-30", "1.5E0", "2", "INF", "NaN"]),
        (
            "dateTime",
            &["0001-01-01T00:00:00Z", "1969-12-31T23:59:59Z", "1970-01-01T01:00:00+01:00", "1970-01-01T00:00:00.5Z"],
        ),
        ("dateTime", &["2020-01-01T00:00:00+01:00", "2020-01-01T00:00:00Z", "2020-01-01T00:00:00-01:00"]),
        ("date", &["0001-01-01", "1969-12-31", "1970-01-01", "2020-02-29", "2020-03-01", "9999-12-31"]),
        ("gYearMonth", &["1999-12", "2000-01"]),
        ("gYear", &["0999", "2000"]),
    ] {
        let ids: Vec<_> = ascending.iter().map(|text| TermId::of(&typed(text, name))).collect();
        assert!(ids.iter().all(TermId::is_inline), "{name}");
        assert!(ids.is_sorted_by(|a, b| a < b), "{name}: {ids:?}");
    }
}

#[test]
fn bytes_that_no_term_has_are_no_value() {
    let with = |kind: u8, at: usize, byte: u8| {
        let mut id = TermId::of(&typed("0", "integer"));
        id.0 = [0; 17];
        id.0[0] = kind;
        id.0[at] = byte;
        id
    };
    for id in [
        with(BOOLEAN, 1, 2),
        with(BOOLEAN, 16, 1),
        with(STRING, 1, 0xff),
        with(LANG, 1, b'a'),
        with(DOUBLE, 9, 2),
        with(DECIMAL, 16, 19),
        with(DATE_TIME, 1, 0xff),
        with(0x26, 1, 1),
        with(0xff, 1, 1),
    ] {
        assert_eq!(id.inline(), None, "{id}");
    }
    // A date that does not begin at midnight.
    let mut id = TermId::of(&typed("2020-01-01", "date"));
    id.0[8] += 1;
    assert_eq!(id.inline(), None);
}

#[test]
fn every_day_has_its_date() {
    let mut last = None;
    for year in [1, 4, 100, 400, 1582, 1899, 1900, 1969, 1970, 1999, 2000, 2023, 2024, 2100, 9999] {
        for month in 1..=12 {
            for day in 1..=28 {
                let id = TermId::of(&typed(&format!("{year:04}-{month:02}-{day:02}"), "date"));
                assert_eq!(id.inline(), Some(typed(&format!("{year:04}-{month:02}-{day:02}"), "date")));
                assert!(last < Some(id));
                last = Some(id);
            }
        }
    }
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-c\\x00]{0,18}",
        any::<String>(),
        "[-+]?[0-9]{0,20}(\\.[0-9]{0,20})?([eE][-+]?[0-9]{1,3})?",
        "-?[0-9]{4}-[01][0-9]-[0-3][0-9](T[0-2][0-9]:[0-5][0-9]:[0-6][0-9](\\.[0-9]{0,10})?)?(Z|[-+][01][0-9]:[0-9]{2})?",
        any::<i128>().prop_map(|n| n.to_string()),
        any::<i64>().prop_map(|n| n.to_string()),
        any::<f64>().prop_map(|n| n.to_string()),
        any::<f64>().prop_map(|n| format!("{n:E}")),
        any::<f32>().prop_map(|n| n.to_string()),
        Just("true".to_string()),
    ]
}

fn term() -> impl Strategy<Value = Term> {
    let name = proptest::sample::select(DATATYPES.iter().map(|(_, name)| *name).collect::<Vec<_>>());
    let leaf = prop_oneof![
        5 => (text(), name).prop_map(|(text, name)| typed(&text, name)),
        2 => ("[a-b\\x00]{0,16}", "[a-z]{2,4}").prop_map(|(text, language)| lang(&text, &language)),
        1 => (text(), "[a-z]:[a-z]{0,3}").prop_map(|(lexical, datatype)| Term::Literal { lexical, datatype }),
        1 => "[a-z]:[a-z]{0,3}".prop_map(Term::Iri),
        1 => "[a-z]{1,3}".prop_map(Term::Blank),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        [inner.clone(), inner.clone(), inner].prop_map(|parts| Term::Triple(Box::new(parts)))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn an_inline_id_gives_back_its_term(term in term()) {
        if let Some(back) = TermId::of(&term).inline() {
            prop_assert_eq!(back, term);
        }
    }

    #[test]
    fn whatever_bytes_give_a_term_are_its_id(kind in STRING..END, value: [u8; 16]) {
        let id = whole(kind, value);
        if let Some(term) = id.inline() {
            prop_assert_eq!(TermId::of(&term), id);
        }
    }

    #[test]
    fn strings_sort_by_their_bytes(a in "[a\\x00b]{0,6}", b in "[a\\x00b]{0,6}") {
        let ids = [&a, &b].map(|text| TermId::of(&typed(text, "string")));
        if ids.iter().all(TermId::is_inline) {
            prop_assert_eq!(ids[0].cmp(&ids[1]), a.cmp(&b));
        } else {
            prop_assert_eq!(ids[0] == ids[1], a == b);
        }
    }

    #[test]
    fn numbers_sort_by_value(a: i64, b: i64, x: f64, y: f64, scale in 0usize..6) {
        let integer = |n: i64| TermId::of(&typed(&n.to_string(), "integer"));
        prop_assert_eq!(integer(a).cmp(&integer(b)), a.cmp(&b));
        let double = |n: f64| TermId::of(&typed(&n.to_string(), "double"));
        if let Some(order) = x.partial_cmp(&y).filter(|_| x != y) {
            prop_assert_eq!(double(x).cmp(&double(y)), order);
        }
        // 19 digits of which the last few are a fraction.
        let decimal = |n: i64| {
            let digits = format!("{:019}", n.unsigned_abs());
            let (whole, part) = digits.split_at(17 - scale);
            let sign = if n < 0 { "-" } else { "" };
            let whole = whole.trim_start_matches('0');
            TermId::of(&typed(&format!("{sign}{}.{part}", if whole.is_empty() { "0" } else { whole }), "decimal"))
        };
        prop_assert!(a == 0 || decimal(a).is_inline());
        prop_assert_eq!(decimal(a).cmp(&decimal(b)), a.cmp(&b));
    }

    #[test]
    fn different_terms_have_different_ids(terms in proptest::collection::vec(term(), 2..40)) {
        let mut seen = BTreeMap::new();
        for term in terms {
            let before = seen.insert(TermId::of(&term), term.clone());
            prop_assert!(before.is_none_or(|before| before == term));
        }
    }
}
