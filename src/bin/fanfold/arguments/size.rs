//! Sizes in bytes with a unit, as GNU's tools read them: `24G`, `24GiB`, `24GB`, `24000000000B`, in letters of either case.
//!
//! `G` and `GiB` are 1024^3 bytes, `GB` is 1000^3. A number without a unit is refused, because some programs take it for bytes,
//! some for MiB and some for GiB. The numbers and units themselves are read by the bytesize crate. Read `numbers.rs` for
//! values without a unit.

use bytesize::ByteSize;

/// The largest size that is read, in bytes: sums of several still fit a u64.
const LARGEST: u64 = 1_000_000_000_000_000_000;

/// A size in bytes.
pub fn size(text: &str) -> Result<u64, String> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = (&text[..end], text[end..].trim());
    if unit.is_empty() && number.parse::<f64>().is_ok() {
        return Err(format!(
            "a size needs a unit: {text}G or {text}GiB (1024^3 bytes each), {text}GB (1000^3), {text}B (bytes)"
        ));
    }
    // The crate reads `G` as 1000^3 and also knows `Gi`, which GNU's tools do not.
    let unit = match unit.to_ascii_lowercase().as_str() {
        letter @ ("k" | "m" | "g" | "t" | "p") => format!("{letter}ib"),
        other => other.to_string(),
    };
    let read = if unit.ends_with('b') { format!("{number}{unit}").parse::<ByteSize>().ok() } else { None };
    let refused = || "a size such as 8G, 8GiB, 500MB or 1000000B".to_string();
    read.map(|size| size.as_u64()).filter(|bytes| *bytes < LARGEST).ok_or_else(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_unit_and_a_number_alone_is_refused() {
        let giga = 1u64 << 30;
        for (text, bytes) in [
            ("24G", 24 * giga),
            ("24g", 24 * giga),
            ("24GiB", 24 * giga),
            ("24gib", 24 * giga),
            ("24 GiB", 24 * giga),
            ("140GB", 140_000_000_000),
            ("140gb", 140_000_000_000),
            ("500M", 500 << 20),
            ("500MB", 500_000_000),
            ("1.5K", 1536),
            ("2T", 2048 * giga),
            ("24000000000B", 24_000_000_000),
            ("7b", 7),
            ("0B", 0),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["24", "0", "1.5"] {
            let reason = size(text).unwrap_err();
            assert!(reason.contains(&format!("{text}GiB")) && reason.contains("unit"), "{reason}");
        }
        for text in ["", "G", "GiB", "-1G", "x", "24X", "24GG", "24Gi", "1e3G", "24ib", "24kmB", "1..2G", "9999999PB"] {
            assert!(size(text).unwrap_err().contains("8GiB"), "{text}");
        }
    }
}
