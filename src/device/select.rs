//! Which devices a list such as `0x3,host,radeon` means, and which are taken when none is given.
//!
//! Reading a list deliberately opens nothing and knows adapters only by their descriptions, so that tests can make
//! some up. Read [`super::gpu`] next for where descriptions come from.

use super::Device;
use super::gpu::{AdapterInfo, AdapterKind, GpuDevice, GpuOptions};
use super::host::HostDevice;
use crate::device::DeviceError;

use crate::program::{Holding, Room};
use std::fmt;

/// The most devices one session uses.
#[doc(hidden)]
pub const MAX_DEVICES: usize = 16;

/// One device of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The reference evaluation.
    Host,
    /// A GPU.
    Gpu(AdapterInfo),
}

impl DeviceChoice {
    /// Whether its memory is the machine's main memory.
    fn in_main_memory(&self) -> bool {
        match self {
            DeviceChoice::Host => true,
            DeviceChoice::Gpu(info) => matches!(info.kind, AdapterKind::Integrated | AdapterKind::Software),
        }
    }

    /// Bytes of the largest tensor that it holds in one piece.
    fn largest(&self) -> Option<u64> {
        match self {
            DeviceChoice::Host => None,
            DeviceChoice::Gpu(info) => Some(info.largest_tensor()),
        }
    }
}

/// How much memory the devices have, and which of them share it, before they are opened.
///
/// `given` is empty, or holds the bytes of each device, each for itself. When it is empty, a card has the memory that
/// its driver states, shared by the devices that it is opened as; the host, software adapters and integrated GPUs
/// share `free`, the machine's free memory, when that is known.
#[doc(hidden)]
pub fn rooms(choices: &[DeviceChoice], given: &[u64], free: Option<u64>) -> Vec<Room> {
    let first = |wanted: &dyn Fn(&DeviceChoice) -> bool| choices.iter().position(wanted).unwrap_or(0);
    let room = |(i, choice): (usize, &DeviceChoice)| {
        let (memory, pool) = match (given.get(i), choice) {
            (Some(&bytes), _) => (Some(bytes), i),
            (None, choice) if choice.in_main_memory() => (free, first(&DeviceChoice::in_main_memory)),
            (None, DeviceChoice::Gpu(info)) => (info.memory, first(&|other| other == choice)),
            (None, DeviceChoice::Host) => (None, i),
        };
        let holding = if *choice == DeviceChoice::Host { Holding::Widened } else { Holding::Laid };
        Room { device: choice.to_string(), memory, pool, largest: choice.largest(), holding }
    };
    choices.iter().enumerate().map(room).collect()
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceChoice::Host => f.pad("host"),
            DeviceChoice::Gpu(info) => f.pad(&info.name),
        }
    }
}

/// Reads a comma-separated list of devices.
///
/// An entry is an adapter's index, a part of its name in any case, or `host`; `0x3` stands for `0,0,0` (it is no
/// hexadecimal number). Errors when an entry matches no adapter or several, when the list is empty, and when there
/// are more than [`MAX_DEVICES`].
pub fn parse(list: &str, adapters: &[AdapterInfo]) -> Result<Vec<DeviceChoice>, DeviceError> {
    let wrong = |reason: String| DeviceError::List { list: list.to_string(), reason };
    let mut chosen = Vec::new();
    for entry in list.split(',').map(str::trim) {
        if entry.is_empty() {
            return Err(wrong("an entry is empty".into()));
        }
        let (word, times) = repetition(entry);
        if times == 0 || times > MAX_DEVICES - chosen.len() {
            return Err(wrong(format!("{entry:?}: a session uses 1 to {MAX_DEVICES} devices")));
        }
        let choice = find(word, adapters, &wrong)?;
        chosen.extend(std::iter::repeat_n(choice, times));
    }
    Ok(chosen)
}

/// `0x3` as `("0", 3)`; anything else as itself, once.
fn repetition(entry: &str) -> (&str, usize) {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match entry.rsplit_once(['x', 'X']) {
        Some((word, times)) if number(times) && (number(word) || word.eq_ignore_ascii_case("host")) => {
            // A count that does not fit a usize is above the limit, too.
            (word, times.parse().unwrap_or(usize::MAX))
        }
        _ => (entry, 1),
    }
}

fn find(
    word: &str,
    adapters: &[AdapterInfo],
    wrong: &dyn Fn(String) -> DeviceError,
) -> Result<DeviceChoice, DeviceError> {
    if word.eq_ignore_ascii_case("host") {
        return Ok(DeviceChoice::Host);
    }
    let matches: Vec<&AdapterInfo> = if word.bytes().all(|b| b.is_ascii_digit()) {
        adapters.iter().filter(|info| word.parse() == Ok(info.index)).collect()
    } else {
        let exact = |info: &&AdapterInfo| info.name.eq_ignore_ascii_case(word);
        let part = |info: &&AdapterInfo| info.name.to_lowercase().contains(&word.to_lowercase());
        let exact: Vec<_> = adapters.iter().filter(exact).collect();
        if exact.is_empty() { adapters.iter().filter(part).collect() } else { exact }
    };
    match matches.as_slice() {
        [info] => Ok(DeviceChoice::Gpu((*info).clone())),
        [] => {
            let mut present: Vec<String> = adapters.iter().map(ToString::to_string).collect();
            present.push("host: the reference evaluation".into());
            Err(DeviceError::NotFound { wanted: word.to_string(), present })
        }
        several => {
            let several: Vec<String> = several.iter().map(ToString::to_string).collect();
            Err(wrong(format!("{word:?} matches several adapters; use an index: {}", several.join("; "))))
        }
    }
}

/// The devices to take when none is named, and whether they are software adapters only.
///
/// These are all physical GPUs, each once, or else one software adapter. Errors when there is no adapter at all.
#[doc(hidden)]
pub fn default_choice(adapters: &[AdapterInfo]) -> Result<(Vec<DeviceChoice>, bool), DeviceError> {
    let physical = adapters.iter().filter(|info| !info.is_software()).take(MAX_DEVICES).cloned();
    let physical: Vec<_> = physical.map(DeviceChoice::Gpu).collect();
    match (physical.is_empty(), adapters.first()) {
        (false, _) => Ok((physical, false)),
        (true, Some(software)) => Ok((vec![DeviceChoice::Gpu(software.clone())], true)),
        (true, None) => Err(DeviceError::NoAdapter),
    }
}

/// Opens a chosen device. Errors when its adapter is gone or refuses.
pub fn open(choice: &DeviceChoice, options: &GpuOptions) -> Result<Box<dyn Device>, DeviceError> {
    Ok(match choice {
        DeviceChoice::Host => Box::new(HostDevice::new()),
        DeviceChoice::Gpu(info) => Box::new(GpuDevice::open(info, options)?),
    })
}

#[cfg(test)]
mod tests {
    use super::super::gpu::Backend;
    use super::*;

    fn made_up(names: &[(&str, AdapterKind)]) -> Vec<AdapterInfo> {
        let info = |(index, (name, kind)): (usize, &(&str, AdapterKind))| AdapterInfo {
            index,
            name: name.to_string(),
            kind: *kind,
            backend: Backend::Vulkan,
            driver: String::new(),
            vendor: 0,
            device: 0,
            pci_bus_id: String::new(),
            memory: None,
            max_binding: 1 << 27,
            max_buffer: 1 << 28,
            subgroup: 0,
            numerics: Vec::new(),
            features: Vec::new(),
            ordinal: 0,
        };
        names.iter().enumerate().map(info).collect()
    }

    fn read(list: &str) -> Result<Vec<String>, DeviceError> {
        use AdapterKind::*;
        let adapters =
            made_up(&[("Radeon RX 6800", Discrete), ("Radeon RX 6800 XT", Discrete), ("0x3 llvmpipe", Software)]);
        Ok(parse(list, &adapters)?.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn entries_are_indices_names_host_and_repetitions() {
        assert_eq!(read("0, LLVM ,host").unwrap(), ["Radeon RX 6800", "0x3 llvmpipe", "host"]);
        assert_eq!(read("0x3").unwrap(), ["Radeon RX 6800"; 3]);
        assert_eq!(read("2x1,hostX2").unwrap(), ["0x3 llvmpipe", "host", "host"]);
        // The whole of one name is a part of another.
        assert_eq!(read("radeon rx 6800").unwrap(), ["Radeon RX 6800"]);
        assert_eq!(read("0x16").unwrap().len(), 16);
    }

    #[test]
    fn a_list_that_cannot_be_read_says_why() {
        let list = |text: &str| match read(text) {
            Err(DeviceError::List { reason, .. }) => reason,
            other => panic!("{text}: {other:?}"),
        };
        assert!(list("radeon").contains("Radeon RX 6800 XT"));
        assert!(list("").contains("empty") && list("0,,1").contains("empty"));
        for count in ["0x0", "0x17", "0x99999999999999999999", "0x16,1"] {
            assert!(list(count).contains("1 to 16"), "{count}");
        }
        for word in ["3", "9x2", "geforce", "0x", "99999999999999999999"] {
            match read(word) {
                Err(DeviceError::NotFound { present, .. }) if word != "0x" => {
                    assert_eq!(present.len(), 4, "{word}");
                }
                // "0x" is a part of the last adapter's name.
                Ok(found) if word == "0x" => assert_eq!(found, ["0x3 llvmpipe"]),
                other => panic!("{word}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_lies_in_one_memory_is_counted_together() {
        use AdapterKind::*;
        let adapters = made_up(&[("card", Discrete), ("card", Discrete), ("chip", Integrated), ("soft", Software)]);
        let mut with_memory = adapters.clone();
        with_memory[0].memory = Some(8);
        let choices = parse("0x2,1,2,host,3", &with_memory).unwrap();
        let told: Vec<_> = rooms(&choices, &[], Some(100)).iter().map(|room| (room.memory, room.pool)).collect();
        let (card, unknown, main) = ((Some(8), 0), (None, 2), (Some(100), 3));
        assert_eq!(told, [card, card, unknown, main, main, main]);
        // What a person says holds for each device alone.
        let given: Vec<_> =
            rooms(&choices, &[1, 2, 3, 4, 5, 6], Some(100)).iter().map(|r| (r.memory, r.pool)).collect();
        assert_eq!(given, (0..6).map(|i| (Some(i as u64 + 1), i)).collect::<Vec<_>>());
        let pieces: Vec<_> = rooms(&choices, &[], None).iter().map(|room| room.largest).collect();
        assert_eq!(pieces, [Some(1 << 27), Some(1 << 27), Some(1 << 27), Some(1 << 27), None, Some(1 << 27)]);
    }

    #[test]
    fn software_is_the_last_resort() {
        use AdapterKind::*;
        let (chosen, software) =
            default_choice(&made_up(&[("a", Discrete), ("b", Integrated), ("c", Software)])).unwrap();
        assert_eq!((chosen.len(), software), (2, false));
        let (chosen, software) = default_choice(&made_up(&[("c", Software), ("d", Software)])).unwrap();
        assert_eq!((chosen.len(), software), (1, true));
        assert!(matches!(default_choice(&[]), Err(DeviceError::NoAdapter)));
    }
}
