//! Lists the GPUs of this machine, each once, with the facts that its driver reports; and opens one.
//!
//! It deliberately knows no program, and guesses no size: what the driver does not report stays unknown. Read
//! [`crate::device::select`] next for how users name adapters in a list, and `context.rs` for an opened one.

use crate::device::DeviceError;
use crate::kernel::Numerics;
use serde::Serialize;
use std::fmt;

/// The kinds of adapters, usually the fastest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[doc(hidden)]
pub enum AdapterKind {
    /// A GPU with memory of its own.
    Discrete,
    /// A GPU that shares the processor's memory.
    Integrated,
    /// A GPU, or a share of one, passed to a virtual machine.
    Virtual,
    /// The driver does not report the kind.
    Unknown,
    /// A rasteriser that runs on the processor.
    Software,
}

impl fmt::Display for AdapterKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            AdapterKind::Discrete => "discrete",
            AdapterKind::Integrated => "integrated",
            AdapterKind::Virtual => "virtual",
            AdapterKind::Unknown => "unknown",
            AdapterKind::Software => "software",
        })
    }
}

/// The graphics API through which an adapter is used, the preferred one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[doc(hidden)]
pub enum Backend {
    /// Vulkan.
    Vulkan,
    /// Metal.
    Metal,
    /// Direct3D 12.
    Dx12,
    /// OpenGL or OpenGL ES.
    Gl,
}

impl Backend {
    const ALL: [Backend; 4] = [Backend::Vulkan, Backend::Metal, Backend::Dx12, Backend::Gl];

    fn bits(self) -> wgpu::Backends {
        match self {
            Backend::Vulkan => wgpu::Backends::VULKAN,
            Backend::Metal => wgpu::Backends::METAL,
            Backend::Dx12 => wgpu::Backends::DX12,
            Backend::Gl => wgpu::Backends::GL,
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Backend::Vulkan => "Vulkan",
            Backend::Metal => "Metal",
            Backend::Dx12 => "DX12",
            Backend::Gl => "GL",
        })
    }
}

/// The facts known about one GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AdapterInfo {
    /// Its number in the list of adapters, from 0. Users name a device by it.
    pub index: usize,
    /// The GPU's name.
    pub name: String,
    /// The kind of GPU.
    pub kind: AdapterKind,
    /// The graphics API through which it is used.
    pub backend: Backend,
    /// The driver's name and version, as the driver reports them.
    pub driver: String,
    /// The PCI vendor id; 0 when unknown.
    pub vendor: u32,
    /// The PCI device id; 0 when unknown.
    pub device: u32,
    /// Its address on the PCI bus; empty when unknown.
    pub pci_bus_id: String,
    /// The size of its largest device-local memory in bytes; `None` when the driver does not report it.
    pub memory: Option<u64>,
    /// The largest storage buffer binding, in bytes.
    pub max_binding: u64,
    /// The largest buffer, in bytes.
    pub max_buffer: u64,
    /// The fewest lanes of a subgroup; 0 where it has no subgroup operations.
    pub subgroup: u32,
    /// The orders in which its kernels can add up sums, the one that suits it first.
    pub numerics: Vec<Numerics>,
    /// Optional wgpu features that it supports, of those that kernels may use.
    pub features: Vec<&'static str>,
    /// Its number among adapters that have the same name, backend and bus address.
    #[serde(skip)]
    pub ordinal: usize,
}

impl AdapterInfo {
    /// Whether this is a rasteriser that runs on the processor.
    #[doc(hidden)]
    pub fn is_software(&self) -> bool {
        self.kind == AdapterKind::Software
    }

    /// The largest tensor that it can hold in one binding, in bytes.
    #[doc(hidden)]
    pub fn largest_tensor(&self) -> u64 {
        largest_tensor(self.max_binding, self.max_buffer)
    }

    fn same_entry(&self, other: &AdapterInfo) -> bool {
        (self.backend, &self.name, &self.pci_bus_id) == (other.backend, &other.name, &other.pci_bus_id)
    }

    /// Whether both describe the same physical GPU.
    fn same_gpu(&self, other: &AdapterInfo) -> bool {
        if !self.pci_bus_id.is_empty() && !other.pci_bus_id.is_empty() {
            return self.pci_bus_id.eq_ignore_ascii_case(&other.pci_bus_id);
        }
        // Within one API two cards of the same model differ only in their bus address.
        if self.backend == other.backend || self.is_software() != other.is_software() {
            return false;
        }
        let names = (base_name(&self.name), base_name(&other.name));
        if self.backend == Backend::Gl || other.backend == Backend::Gl {
            // OpenGL reports neither ids nor a bus address, and adds words to the name.
            return names.0.contains(&names.1) || names.1.contains(&names.0);
        }
        (self.vendor, self.device) == (other.vendor, other.device) && names.0 == names.1
    }
}

impl fmt::Display for AdapterInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({}, {}, ", self.index, self.name, self.kind, self.backend)?;
        match self.memory {
            Some(bytes) => write!(f, "{:.1} GiB)", bytes as f64 / (1u64 << 30) as f64),
            None => f.write_str("memory unknown)"),
        }
    }
}

/// The largest tensor in one binding, in bytes, given the largest binding and the largest buffer.
pub(super) fn largest_tensor(max_binding: u64, max_buffer: u64) -> u64 {
    let largest = max_binding.min(max_buffer);
    largest - largest % super::options::ALIGNMENT
}

/// The part of a GPU's name that is the same in every API: without driver, bus and wrapper names.
fn base_name(name: &str) -> String {
    let name = name.to_lowercase();
    let name = name.strip_prefix("mesa ").unwrap_or(&name);
    name.split([',', '/']).next().and_then(|name| name.split(" (").next()).unwrap_or(name).trim().to_string()
}

/// Every GPU of this machine once, over Vulkan, Metal, DX12 and GL: discrete first, software last.
pub fn adapters() -> Vec<AdapterInfo> {
    unique(Backend::ALL.into_iter().flat_map(|backend| found(backend).into_iter().map(|(info, _)| info)).collect())
}

/// The adapters of `all` with each physical GPU once, numbered in order. `all` lists the preferred API first, and a
/// GPU's first appearance is kept.
fn unique(all: Vec<AdapterInfo>) -> Vec<AdapterInfo> {
    let mut kept: Vec<AdapterInfo> = Vec::new();
    for info in all {
        if !kept.iter().any(|other| info.same_gpu(other)) {
            kept.push(info);
        }
    }
    kept.sort_by_key(|info| info.kind);
    for (index, info) in kept.iter_mut().enumerate() {
        info.index = index;
    }
    kept
}

/// Opens a device on the adapter `info` and returns it with its queue.
///
/// Each device is opened on a wgpu instance of its own: software drivers share one thread pool among the devices of
/// an instance, which would then run one after another. Errors when the adapter is no longer there, or refuses to
/// open a device.
pub(super) fn open(info: &AdapterInfo) -> Result<(wgpu::Device, wgpu::Queue), DeviceError> {
    let found = found(info.backend);
    let present: Vec<String> = found.iter().map(|(info, _)| info.name.clone()).collect();
    let Some((_, adapter)) =
        found.into_iter().find(|(other, _)| info.same_entry(other) && info.ordinal == other.ordinal)
    else {
        return Err(DeviceError::NotFound { wanted: info.name.clone(), present });
    };
    // Request all that the adapter supports: wgpu's default limits allow bindings of 128 MiB only.
    let (required_limits, required_features) = (adapter.limits(), adapter.features() & USED);
    let descriptor = wgpu::DeviceDescriptor { required_limits, required_features, ..Default::default() };
    pollster::block_on(adapter.request_device(&descriptor))
        .map_err(|error| DeviceError::Refused { device: info.name.clone(), reason: error.to_string() })
}

/// The optional features that kernels use where an adapter has them.
const USED: wgpu::Features = wgpu::Features::SUBGROUP;

/// The adapters of one API, on a new wgpu instance.
fn found(backend: Backend) -> Vec<(AdapterInfo, wgpu::Adapter)> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: backend.bits(),
        flags: wgpu::InstanceFlags::empty(),
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let mut found: Vec<(AdapterInfo, wgpu::Adapter)> = Vec::new();
    for adapter in pollster::block_on(instance.enumerate_adapters(backend.bits())) {
        let mut info = describe(backend, &adapter);
        info.ordinal = found.iter().filter(|(other, _)| info.same_entry(other)).count();
        found.push((info, adapter));
    }
    found
}

fn describe(backend: Backend, adapter: &wgpu::Adapter) -> AdapterInfo {
    let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
    let named = [
        (wgpu::Features::SHADER_F16, "shader-f16"),
        (wgpu::Features::SUBGROUP, "subgroup"),
        (wgpu::Features::MAPPABLE_PRIMARY_BUFFERS, "mappable-primary-buffers"),
        (wgpu::Features::TIMESTAMP_QUERY, "timestamp-query"),
    ];
    AdapterInfo {
        index: 0,
        name: info.name.trim().to_string(),
        kind: match info.device_type {
            wgpu::DeviceType::DiscreteGpu => AdapterKind::Discrete,
            wgpu::DeviceType::IntegratedGpu => AdapterKind::Integrated,
            wgpu::DeviceType::VirtualGpu => AdapterKind::Virtual,
            wgpu::DeviceType::Cpu => AdapterKind::Software,
            wgpu::DeviceType::Other => AdapterKind::Unknown,
        },
        backend,
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_string(),
        vendor: info.vendor,
        device: info.device,
        pci_bus_id: info.device_pci_bus_id,
        // A software adapter reports an arbitrary share of the host's memory, not a limit.
        memory: if info.device_type == wgpu::DeviceType::Cpu { None } else { memory(adapter) },
        max_binding: limits.max_storage_buffer_binding_size,
        max_buffer: limits.max_buffer_size,
        subgroup: if features.contains(wgpu::Features::SUBGROUP) { info.subgroup_min_size } else { 0 },
        numerics: offered(info.device_type == wgpu::DeviceType::Cpu, &limits),
        features: named.into_iter().filter(|(bit, _)| features.contains(*bit)).map(|(_, name)| name).collect(),
        ordinal: 0,
    }
}

/// The orders of sums that an adapter offers, as far as its facts tell, the best guess first: by lanes on a GPU whose workgroups
/// have the size and the memory that those kernels need, sequential on a software driver.
fn offered(software: bool, limits: &wgpu::Limits) -> Vec<Numerics> {
    let large = limits.max_compute_invocations_per_workgroup >= 256
        && limits.max_compute_workgroup_size_x >= 256
        && limits.max_compute_workgroup_storage_size >= 16 << 10;
    match (large, software) {
        (true, false) => vec![Numerics::Lanes, Numerics::Sequential],
        (true, true) => vec![Numerics::Sequential, Numerics::Lanes],
        (false, _) => vec![Numerics::Sequential],
    }
}

/// The size of the largest device-local memory heap, in bytes.
#[cfg(not(target_vendor = "apple"))]
fn memory(adapter: &wgpu::Adapter) -> Option<u64> {
    // SAFETY: the adapter that wgpu lends is only read, and dropped in this function.
    let adapter = unsafe { adapter.as_hal::<wgpu::hal::api::Vulkan>() }?;
    // SAFETY: the physical device was enumerated on this Vulkan instance, which the adapter keeps alive.
    let properties = unsafe {
        let instance = adapter.shared_instance().raw_instance();
        instance.get_physical_device_memory_properties(adapter.raw_physical_device())
    };
    // Bit 0 is VK_MEMORY_HEAP_DEVICE_LOCAL_BIT. Further local heaps are windows onto the largest (PCI BARs).
    let heaps = properties.memory_heaps.iter().take(properties.memory_heap_count as usize);
    heaps.filter(|heap| heap.flags.as_raw() & 1 != 0).map(|heap| heap.size).max()
}

/// Metal is not asked yet.
#[cfg(target_vendor = "apple")]
fn memory(_adapter: &wgpu::Adapter) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(name: &str, kind: AdapterKind, backend: Backend, device: u32, bus: &str) -> AdapterInfo {
        AdapterInfo {
            index: 0,
            name: name.to_string(),
            kind,
            backend,
            driver: String::new(),
            vendor: 0x10DE,
            device,
            pci_bus_id: bus.to_string(),
            memory: None,
            max_binding: 1 << 27,
            max_buffer: 1 << 28,
            subgroup: 0,
            numerics: vec![Numerics::Sequential],
            features: Vec::new(),
            ordinal: 0,
        }
    }

    #[test]
    fn one_gpu_under_three_interfaces_is_listed_once() {
        use AdapterKind::*;
        let listed = unique(vec![
            info("llvmpipe (LLVM 15.0.6, 256 bits)", Software, Backend::Vulkan, 0, ""),
            info("Intel(R) UHD Graphics 620 (KBL GT2)", Integrated, Backend::Vulkan, 3, "0000:00:02.0"),
            info("NVIDIA GeForce RTX 3080", Discrete, Backend::Vulkan, 7, "0000:01:00.0"),
            info("NVIDIA GeForce RTX 3080", Discrete, Backend::Vulkan, 7, "0000:02:00.0"),
            info("NVIDIA GeForce RTX 3080", Discrete, Backend::Dx12, 7, ""),
            info("NVIDIA GeForce RTX 3080", Discrete, Backend::Dx12, 7, "0000:02:00.0"),
            info("Some other card", Unknown, Backend::Dx12, 9, ""),
            info("NVIDIA GeForce RTX 3080/PCIe/SSE2", Unknown, Backend::Gl, 0, ""),
            info("Mesa Intel(R) UHD Graphics 620 (KBL GT2)", Unknown, Backend::Gl, 0, ""),
            info("llvmpipe (LLVM 14.0.0, 128 bits)", Software, Backend::Gl, 0, ""),
        ]);
        let names: Vec<String> = listed.iter().map(|i| format!("{} {} {}", i.index, i.name, i.pci_bus_id)).collect();
        assert_eq!(
            names,
            [
                "0 NVIDIA GeForce RTX 3080 0000:01:00.0",
                "1 NVIDIA GeForce RTX 3080 0000:02:00.0",
                "2 Intel(R) UHD Graphics 620 (KBL GT2) 0000:00:02.0",
                "3 Some other card ",
                "4 llvmpipe (LLVM 15.0.6, 256 bits) ",
            ]
        );
    }

    #[test]
    fn equal_cards_without_a_bus_stay_two() {
        let card = || info("Card", AdapterKind::Discrete, Backend::Vulkan, 7, "");
        assert_eq!(unique(vec![card(), card()]).len(), 2);
    }
}
