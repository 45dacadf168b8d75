// Package vm tests the node plugin in a virtual machine that has what a real server has: udev, hot-plugged disks with serial
// numbers, the device mapper, every capability. See docs/vm.md.
package vm
