// Package disk knows the block devices, filesystems and mounts of the machine it runs on: it finds the device of a
// volume and proves that it is that volume's, tells what is on it, formats it when it is provably blank, mounts it,
// and takes it all down again.
//
// It knows nothing of CSI, of Kubernetes or of the UpCloud API. A volume is its storage UUID and a size; everything
// else is read from sysfs, from the device and from /proc/self/mountinfo each time, so that nothing of ours has to
// survive a restart.
//
// Three rules stand above the rest. A device whose serial is not the volume's is never touched. A device that holds
// anything at all is never formatted. A command that writes (mkfs, fsck) is never killed because a caller went away:
// it runs to its end, and the caller's retry joins it.
package disk
