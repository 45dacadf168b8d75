//go:build !linux

// Package qemudisk gives a simulator's storages real bytes in QEMU machines, which it can on Linux only.
package qemudisk

import (
	"errors"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// Config says what a plane is to be.
type Config struct {
	Dir      string
	Keep     bool
	ErrorLog func(error)
}

// New says that the plane needs Linux.
func New(Config) (simulator.DiskKeeper, error) {
	return nil, errors.New("disks of QEMU machines need Linux: run without disks")
}
