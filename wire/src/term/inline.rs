//! Values in ids: 16 bytes whose order is the order of the values, and that give back the literal's
//! text to the letter. What is not in the one form that these bytes stand for is not put inline.

use super::id::*;

/// Fraction digits that a decimal's bytes have room for.
const DECIMAL_DIGITS: u32 = 18;
const DECIMAL_ONE: i128 = 10i128.pow(DECIMAL_DIGITS);
/// Decimals, times [`DECIMAL_ONE`], lie between minus this and this: 15 bytes.
const DECIMAL_LIMIT: i128 = 1 << 119;
const DAY_SECONDS: i64 = 86_400;

/// The value of a literal of the datatype `kind`, if its text is in canonical form and it fits.
pub(super) fn write(kind: u8, lexical: &str) -> Option<[u8; 16]> {
    match kind {
        BOOLEAN => match lexical {
            "false" => Some(padded(&[0])),
            "true" => Some(padded(&[1])),
            _ => None,
        },
        DECIMAL => decimal(lexical),
        FLOAT => float(lexical),
        DOUBLE => double(lexical),
        DATE_TIME | DATE | YEAR_MONTH | YEAR => instant(kind, lexical),
        _ => {
            let value = integer(lexical)?;
            let (min, max) = integer_bounds(kind)?;
            (min..=max).contains(&value).then(|| ((value as u128) ^ (1 << 127)).to_be_bytes())
        }
    }
}

/// The text of a value. The caller checks that the text gives the same bytes.
pub(super) fn read(kind: u8, value: &[u8; 16]) -> Option<String> {
    match kind {
        BOOLEAN => Some(if value[0] == 0 { "false" } else { "true" }.into()),
        DECIMAL => read_decimal(value),
        FLOAT => read_float(value),
        DOUBLE => read_double(value),
        DATE_TIME | DATE | YEAR_MONTH | YEAR => read_instant(kind, value),
        _ => Some(((u128::from_be_bytes(*value) ^ (1 << 127)) as i128).to_string()),
    }
}

/// A string of at most 16 bytes, filled up with zeros. One that ends with a zero itself could not be
/// told from a shorter one.
pub(super) fn string(text: &str) -> Option<[u8; 16]> {
    (text.len() <= 16 && !text.ends_with('\0')).then(|| padded(text.as_bytes()))
}

pub(super) fn read_string(value: &[u8]) -> Option<String> {
    let length = value.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    String::from_utf8(value[..length].to_vec()).ok()
}

/// A string of at most 14 bytes, then a language of two or three letters as a number of base 27.
pub(super) fn language_string(text: &str, language: &str) -> Option<[u8; 16]> {
    let letters = language.as_bytes();
    let fits = text.len() <= 14 && !text.ends_with('\0') && (2..=3).contains(&letters.len());
    if !fits || !letters.iter().all(u8::is_ascii_lowercase) {
        return None;
    }
    let digit = |i: usize| letters.get(i).map_or(0, |c| u16::from(c - b'a') + 1);
    let mut value = padded(text.as_bytes());
    value[14..].copy_from_slice(&((digit(0) * 27 + digit(1)) * 27 + digit(2)).to_be_bytes());
    Some(value)
}

pub(super) fn read_language_string(value: &[u8; 16]) -> Option<(String, String)> {
    let text = read_string(&value[..14])?;
    let number = u16::from_be_bytes([value[14], value[15]]);
    let digits = [number / 27 / 27, number / 27 % 27, number % 27];
    let letter =
        |digit: u16| u8::try_from(digit).ok().filter(|d| (1..=26).contains(d)).map(|d| char::from(b'a' + d - 1));
    let mut language = String::from_iter([letter(digits[0])?, letter(digits[1])?]);
    if digits[2] != 0 {
        language.push(letter(digits[2])?);
    }
    Some((text, language))
}

fn padded(bytes: &[u8]) -> [u8; 16] {
    let mut value = [0; 16];
    value[..bytes.len()].copy_from_slice(bytes);
    value
}

/// Digits without a needless zero in front; a minus where the number is below zero, never a plus.
fn integer(text: &str) -> Option<i128> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let canonical =
        !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit()) && (!digits.starts_with('0') || text == "0");
    if canonical { text.parse().ok() } else { None }
}

/// The values that a type has. A text outside of them is ill-typed, and no number.
fn integer_bounds(kind: u8) -> Option<(i128, i128)> {
    Some(match kind {
        INTEGER => (i128::MIN, i128::MAX),
        NON_POSITIVE_INTEGER => (i128::MIN, 0),
        NEGATIVE_INTEGER => (i128::MIN, -1),
        LONG => (i64::MIN.into(), i64::MAX.into()),
        INT => (i32::MIN.into(), i32::MAX.into()),
        SHORT => (i16::MIN.into(), i16::MAX.into()),
        BYTE => (i8::MIN.into(), i8::MAX.into()),
        NON_NEGATIVE_INTEGER => (0, i128::MAX),
        UNSIGNED_LONG => (0, u64::MAX.into()),
        UNSIGNED_INT => (0, u32::MAX.into()),
        UNSIGNED_SHORT => (0, u16::MAX.into()),
        UNSIGNED_BYTE => (0, u8::MAX.into()),
        POSITIVE_INTEGER => (1, i128::MAX),
        _ => return None,
    })
}

/// The number times 10^18 in 15 bytes, then how many fraction digits its text has: "1.5" and "1.50"
/// are neighbours.
fn decimal(text: &str) -> Option<[u8; 16]> {
    let (whole, fraction) = text.split_once('.').map_or((text, None), |(w, f)| (w, Some(f)));
    let negative = whole.starts_with('-');
    // "-0.5" is canonical where the integer "-0" is not.
    let whole = if whole == "-0" { 0 } else { integer(whole)? };
    let (part, digits) = match fraction {
        None => (0, 0),
        Some(f) if f.is_empty() || f.len() > DECIMAL_DIGITS as usize || !f.bytes().all(|c| c.is_ascii_digit()) => {
            return None;
        }
        Some(f) => (f.parse::<i128>().ok()? * 10i128.pow(DECIMAL_DIGITS - f.len() as u32), f.len() as u8),
    };
    let number = whole.checked_mul(DECIMAL_ONE)?.checked_add(if negative { -part } else { part })?;
    if !(-DECIMAL_LIMIT..DECIMAL_LIMIT).contains(&number) || (negative && number == 0) {
        return None;
    }
    let mut value = [0; 16];
    value[..15].copy_from_slice(&((number + DECIMAL_LIMIT) as u128).to_be_bytes()[1..]);
    value[15] = digits;
    Some(value)
}

fn read_decimal(value: &[u8; 16]) -> Option<String> {
    let mut wide = [0; 16];
    wide[1..].copy_from_slice(&value[..15]);
    let number = u128::from_be_bytes(wide) as i128 - DECIMAL_LIMIT;
    let digits = usize::from(value[15]);
    let sign = if number < 0 { "-" } else { "" };
    let (whole, part) = (number.unsigned_abs() / DECIMAL_ONE as u128, number.unsigned_abs() % DECIMAL_ONE as u128);
    let part = format!("{part:018}");
    match digits {
        0 => Some(format!("{sign}{whole}")),
        _ => Some(format!("{sign}{whole}.{}", part.get(..digits)?)),
    }
}

/// Two texts are canonical for a number: XML Schema's ("1.5E0") and the shortest without an exponent
/// ("1.5"), which is what SPARQL engines compute. This byte after the number says which.
const SCIENTIFIC: u8 = 0;
const PLAIN: u8 = 1;

fn double(text: &str) -> Option<[u8; 16]> {
    let number = special(text, [f64::INFINITY, f64::NEG_INFINITY, f64::from_bits(0x7ff8 << 48)])
        .or_else(|| text.parse().ok())?;
    let form = if text == scientific(&format!("{number:E}")) {
        SCIENTIFIC
    } else if number.is_finite() && text == number.to_string() {
        PLAIN
    } else {
        return None;
    };
    let bits = number.to_bits();
    let ordered = if bits >> 63 == 1 { !bits } else { bits | 1 << 63 };
    let mut value = padded(&ordered.to_be_bytes());
    value[8] = form;
    Some(value)
}

fn read_double(value: &[u8; 16]) -> Option<String> {
    let (ordered, rest) = value.split_first_chunk()?;
    let ordered = u64::from_be_bytes(*ordered);
    let number = f64::from_bits(if ordered >> 63 == 1 { ordered ^ 1 << 63 } else { !ordered });
    Some(if rest[0] == PLAIN { number.to_string() } else { scientific(&format!("{number:E}")) })
}

fn float(text: &str) -> Option<[u8; 16]> {
    let number = special(text, [f32::INFINITY, f32::NEG_INFINITY, f32::from_bits(0x7fc0 << 16)])
        .or_else(|| text.parse().ok())?;
    let form = if text == scientific(&format!("{number:E}")) {
        SCIENTIFIC
    } else if number.is_finite() && text == number.to_string() {
        PLAIN
    } else {
        return None;
    };
    let bits = number.to_bits();
    let ordered = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    let mut value = padded(&ordered.to_be_bytes());
    value[4] = form;
    Some(value)
}

fn read_float(value: &[u8; 16]) -> Option<String> {
    let (ordered, rest) = value.split_first_chunk()?;
    let ordered = u32::from_be_bytes(*ordered);
    let number = f32::from_bits(if ordered >> 31 == 1 { ordered ^ 1 << 31 } else { !ordered });
    Some(if rest[0] == PLAIN { number.to_string() } else { scientific(&format!("{number:E}")) })
}

/// XML Schema's names of the values that are no finite numbers.
fn special<F: Copy>(text: &str, [infinity, minus_infinity, nan]: [F; 3]) -> Option<F> {
    match text {
        "INF" => Some(infinity),
        "-INF" => Some(minus_infinity),
        "NaN" => Some(nan),
        _ => None,
    }
}

/// From Rust's shortest form with an exponent ("1E0", "inf") to XML Schema's ("1.0E0", "INF").
fn scientific(text: &str) -> String {
    match text {
        "inf" => "INF".into(),
        "-inf" => "-INF".into(),
        _ => match text.split_once('E') {
            Some((mantissa, exponent)) if !mantissa.contains('.') => format!("{mantissa}.0E{exponent}"),
            _ => text.into(),
        },
    }
}

/// A point in time: seconds since 1970 in 8 bytes, nanoseconds in 4, the time zone in 2 (minutes
/// east of UTC plus 841; 0 without one, and then the seconds are as if it were UTC). A day, month or
/// year is the point at which it begins.
fn instant(kind: u8, text: &str) -> Option<[u8; 16]> {
    let (text, zone) = split_zone(text)?;
    let (date, time) = match kind {
        DATE_TIME => text.split_once('T')?,
        _ => (text, "00:00:00"),
    };
    let mut parts = date.split('-');
    let year = number(parts.next()?, 4)?;
    let month = if kind == YEAR { 1 } else { number(parts.next()?, 2)? };
    let day = if kind == YEAR || kind == YEAR_MONTH { 1 } else { number(parts.next()?, 2)? };
    if parts.next().is_some()
        || year == 0
        || !(1..=12).contains(&month)
        || !(1..=month_days(year, month)).contains(&day)
    {
        return None;
    }
    let (time, fraction) = time.split_once('.').map_or((time, None), |(t, f)| (t, Some(f)));
    let mut parts = time.split(':');
    let (hour, minute, second) = (number(parts.next()?, 2)?, number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    if parts.next().is_some() || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let nanos = match fraction {
        None => 0,
        Some(f) if f.is_empty() || f.len() > 9 || f.ends_with('0') => return None,
        Some(f) => number(f, f.len())? * 10i64.pow(9 - f.len() as u32),
    };
    let local = days_since_1970(year, month, day) * DAY_SECONDS + hour * 3600 + minute * 60 + second;
    let seconds = local - zone.unwrap_or(0) * 60;
    let mut value = padded(&((seconds as u64) ^ (1 << 63)).to_be_bytes());
    value[8..12].copy_from_slice(&(nanos as u32).to_be_bytes());
    value[12..14].copy_from_slice(&zone.map_or(0, |minutes| (minutes + 841) as u16).to_be_bytes());
    Some(value)
}

fn read_instant(kind: u8, value: &[u8; 16]) -> Option<String> {
    let seconds = (u64::from_be_bytes(value[..8].try_into().ok()?) ^ (1 << 63)) as i64;
    let nanos = u32::from_be_bytes(value[8..12].try_into().ok()?);
    let zone = match u16::from_be_bytes([value[12], value[13]]) {
        0 => None,
        code => Some(i64::from(code) - 841),
    };
    let local = seconds.checked_add(zone.unwrap_or(0) * 60)?;
    let (year, month, day) = date_of(local.div_euclid(DAY_SECONDS))?;
    let mut text = match kind {
        YEAR => format!("{year:04}"),
        YEAR_MONTH => format!("{year:04}-{month:02}"),
        _ => format!("{year:04}-{month:02}-{day:02}"),
    };
    if kind == DATE_TIME {
        let second = local.rem_euclid(DAY_SECONDS);
        text += &format!("T{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60);
        if nanos != 0 {
            text += format!(".{nanos:09}").trim_end_matches('0');
        }
    }
    match zone {
        None => {}
        Some(0) => text.push('Z'),
        Some(minutes) => {
            let sign = if minutes < 0 { '-' } else { '+' };
            text += &format!("{sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60);
        }
    }
    Some(text)
}

/// The text before the time zone, and the zone in minutes; none if the zone is not canonical.
fn split_zone(text: &str) -> Option<(&str, Option<i64>)> {
    if let Some(text) = text.strip_suffix('Z') {
        return Some((text, Some(0)));
    }
    let bytes = text.as_bytes();
    // A zone ends with "hh:mm" after its sign; a time ends with "mm:ss" after a colon or digit.
    let Some(at) = bytes.len().checked_sub(6).filter(|at| matches!(bytes[*at], b'+' | b'-') && bytes[at + 3] == b':')
    else {
        return Some((text, None));
    };
    let (hours, minutes) = (number(text.get(at + 1..at + 3)?, 2)?, number(text.get(at + 4..)?, 2)?);
    let offset = hours * 60 + minutes;
    if minutes > 59 || offset > 840 || offset == 0 {
        return None;
    }
    Some((&text[..at], Some(if bytes[at] == b'-' { -offset } else { offset })))
}

/// A number of exactly so many digits.
fn number(text: &str, digits: usize) -> Option<i64> {
    (text.len() == digits && text.bytes().all(|c| c.is_ascii_digit())).then(|| text.parse().ok())?
}

fn month_days(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 in the Gregorian calendar, counted in years that begin in March, so that the
/// leap day is the last of its year.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    365 * year + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468
}

/// The inverse of [`days_since_1970`], for years 1 to 9999.
fn date_of(days: i64) -> Option<(i64, i64, i64)> {
    let (first, last) = (days_since_1970(1, 1, 1), days_since_1970(9999, 12, 31));
    if !(first..=last).contains(&days) {
        return None;
    }
    // The mean year is 365.2425 days: the estimate is at most one year off.
    let mut year = 1970 + days * 400 / 146_097;
    while days < days_since_1970(year, 1, 1) {
        year -= 1;
    }
    while days >= days_since_1970(year + 1, 1, 1) {
        year += 1;
    }
    let mut month = 1;
    while month < 12 && days >= days_since_1970(year, month + 1, 1) {
        month += 1;
    }
    Some((year, month, days - days_since_1970(year, month, 1) + 1))
}
