// Package sanity holds the driver against the CSI specification with csi-test: the real driver, all services in
// one process, on the simulated UpCloud with real disks (loop devices), real filesystems and real mounts.
package sanity
