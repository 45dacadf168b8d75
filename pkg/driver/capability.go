package driver

import (
	"fmt"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/status"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
)

// accessModes are the ways in which a volume can be used: a storage is attached to one server at a time.
var accessModes = map[csi.VolumeCapability_AccessMode_Mode]bool{
	csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER:        true,
	csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY:   true,
	csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER: true,
	csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER:  true,
}

// checkCapabilities tells whether one volume can have all of the capabilities.
func checkCapabilities(field string, capabilities []*csi.VolumeCapability) error {
	if len(capabilities) == 0 {
		return missing(field)
	}
	for i, capability := range capabilities {
		if err := checkCapability(fmt.Sprintf("%s[%d]", field, i), capability); err != nil {
			return err
		}
	}
	return nil
}

func checkCapability(field string, capability *csi.VolumeCapability) error {
	if err := checkComplete(field, capability); err != nil {
		return err
	}
	mode := capability.GetAccessMode().GetMode()
	if !accessModes[mode] {
		return invalid(field+".access_mode", "%s is not supported, as a volume is attached to one node at a time: "+
			"use SINGLE_NODE_WRITER (ReadWriteOnce) or another SINGLE_NODE mode", mode)
	}
	if capability.GetBlock() != nil {
		return nil
	}
	if capability.GetMount().GetVolumeMountGroup() != "" {
		return invalid(field+".mount.volume_mount_group", "is not supported: leave it out")
	}
	if err := disk.ValidateFilesystem(capability.GetMount().GetFsType()); err != nil {
		return invalid(field+".mount.fs_type", "%v", err)
	}
	if err := disk.ValidateMountOptions(capability.GetMount().GetMountFlags(), readerOnly(capability)); err != nil {
		return invalid(field+".mount.mount_flags", "%v", err)
	}
	return nil
}

// checkComplete tells whether a capability says all that it must, be it possible or not.
func checkComplete(field string, capability *csi.VolumeCapability) error {
	switch {
	case capability == nil:
		return missing(field)
	case capability.GetAccessMode().GetMode() == csi.VolumeCapability_AccessMode_UNKNOWN:
		return missing(field + ".access_mode")
	case capability.GetBlock() == nil && capability.GetMount() == nil:
		return missing(field + ".access_type")
	}
	return nil
}

func readerOnly(capability *csi.VolumeCapability) bool {
	return capability.GetAccessMode().GetMode() == csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY
}

func singleWriter(capability *csi.VolumeCapability) bool {
	return capability.GetAccessMode().GetMode() == csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER
}

// statusMessage is the text of an error without its code.
func statusMessage(err error) string { return status.Convert(err).Message() }
