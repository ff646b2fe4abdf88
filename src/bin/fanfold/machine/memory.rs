//! How much of the machine's memory is free. The host, software adapters and integrated GPUs share this memory.
//!
//! It asks the operating system, and deliberately counts nothing that this program allocates. Read [`fanfold::device::select::rooms`] for who is told.

use sysinfo::System;

/// Bytes that programs may still allocate, within the limits of a container. `None` where the system does not tell.
pub fn free() -> Option<u64> {
    if !sysinfo::IS_SUPPORTED_SYSTEM {
        return None;
    }
    let mut system = System::new();
    system.refresh_memory();
    let available = Some(system.available_memory()).filter(|bytes| *bytes > 0)?;
    // A container's cache of files can be given up, so only the memory of its processes themselves (rss) counts as taken.
    let contained = system.cgroup_limits().map(|limits| limits.total_memory.saturating_sub(limits.rss));
    Some(contained.unwrap_or(available).min(available))
}

#[cfg(test)]
mod tests {
    #[test]
    #[cfg(target_os = "linux")]
    fn the_system_tells() {
        let kernel = std::fs::read_to_string("/proc/meminfo").unwrap();
        let total = kernel.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap();
        let total: u64 = total.trim().trim_end_matches(" kB").parse().unwrap();
        let free = super::free().unwrap();
        assert!(free > 1 << 20 && free <= total * 1024, "{free} of {total} KiB");
    }
}
