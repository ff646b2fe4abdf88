//! What benches share, and tests that look at a device past fanfold: an adapter opened with wgpu itself.

use fanfold::device::gpu::AdapterInfo;

/// A device of the Vulkan adapter that `info` names, on an instance of its own, with all that the adapter allows.
pub fn open_by_hand(info: &AdapterInfo) -> (wgpu::Device, wgpu::Queue) {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: wgpu::Backends::VULKAN,
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let found = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::VULKAN));
    let adapter = found.into_iter().find(|adapter| adapter.get_info().name.trim() == info.name).unwrap();
    let descriptor = wgpu::DeviceDescriptor { required_limits: adapter.limits(), ..Default::default() };
    pollster::block_on(adapter.request_device(&descriptor)).unwrap()
}
