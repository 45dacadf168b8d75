//go:build !linux

// Package loopdisk gives a simulator's storages real bytes on loop devices, which only Linux has.
package loopdisk

import (
	"errors"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// Open says that loop devices need Linux.
func Open(string) (simulator.DiskKeeper, error) {
	return nil, errors.New("loop devices need Linux: run without disks")
}

// New says that loop devices need Linux.
func New(string) (simulator.DiskPlane, error) {
	return nil, errors.New("loop devices need Linux: run without disks")
}
