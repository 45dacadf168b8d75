package simulator

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Limits of one server: 16 storage devices, and 24 devices and network interfaces together.
const (
	maxStorageDevices    = 16
	maxDevicesAndNICs    = 24
	slotsVirtio          = 16
	slotsSCSI            = 16
	slotsIDE             = 4
	deviceDisk           = "disk"
	deviceCDROM          = "cdrom"
	busVirtio            = "virtio"
	busSCSI              = "scsi"
	busIDE               = "ide"
	defaultDeviceBus     = busVirtio
	defaultCDROMBus      = busIDE
	firstSCSIControllers = "scsi:0:"
)

// busAddresses returns the addresses of a bus in order; nil when there is no such bus.
func busAddresses(bus string) []string {
	var out []string
	switch bus {
	case busVirtio:
		for n := range slotsVirtio {
			out = append(out, fmt.Sprintf("virtio:%d", n))
		}
	case busSCSI:
		for n := range slotsSCSI {
			out = append(out, firstSCSIControllers+strconv.Itoa(n))
		}
	case busIDE:
		for n := range slotsIDE {
			out = append(out, fmt.Sprintf("ide:%d:%d", n/2, n%2))
		}
	}
	return out
}

// freeAddress returns the address at which a device is to sit: the one asked for, or the next free one of the bus asked
// for. taken says which are not free.
func freeAddress(asked, kind string, taken func(string) bool) (string, error) {
	if asked == "" {
		asked = defaultDeviceBus
		if kind == deviceCDROM {
			asked = defaultCDROMBus
		}
	}
	bus, _, exact := strings.Cut(asked, ":")
	addresses := busAddresses(bus)
	if exact {
		if !slices.Contains(addresses, asked) {
			return "", badRequest("ADDRESS_INVALID", "The device address '%s' is not valid.", asked)
		}
		if taken(asked) {
			return "", conflict("DEVICE_ADDRESS_IN_USE", "The device address '%s' is in use.", asked)
		}
		return asked, nil
	}
	if addresses == nil {
		return "", badRequest("ADDRESS_INVALID", "The device address '%s' is not valid.", asked)
	}
	for _, a := range addresses {
		if !taken(a) {
			return a, nil
		}
	}
	return "", conflict("STORAGE_DEVICE_LIMIT_REACHED", "The bus '%s' has no free address.", bus)
}

type deviceRequest struct {
	StorageDevice struct {
		Type     string `json:"type"`
		Address  string `json:"address"`
		Storage  string `json:"storage"`
		BootDisk number `json:"boot_disk"`
	} `json:"storage_device"`
}

func (v *server) deviceAt(address string) *device {
	for _, dev := range v.devices {
		if dev.address == address {
			return dev
		}
	}
	return nil
}

func (v *server) deviceOf(storage string) *device {
	for _, dev := range v.devices {
		if dev.storage == storage {
			return dev
		}
	}
	return nil
}

func (v *server) checkDeviceLimits() error {
	if len(v.devices) >= maxStorageDevices {
		return conflict("STORAGE_DEVICE_LIMIT_REACHED", "The server %s has %d storage devices, which is the most it can have.",
			v.uuid, maxStorageDevices)
	}
	if len(v.devices)+len(v.nics) >= maxDevicesAndNICs {
		return conflict("STORAGE_DEVICE_LIMIT_REACHED",
			"The server %s has %d storage devices and network interfaces, which is the most it can have.", v.uuid,
			maxDevicesAndNICs)
	}
	return nil
}

func (s *Simulator) attachStorage(c *call) (any, error) {
	v, err := s.server(c.path("uuid"))
	if err != nil {
		return nil, err
	}
	var req deviceRequest
	if err := c.decode(&req); err != nil {
		return nil, err
	}
	r := req.StorageDevice
	switch r.Type {
	case "":
		r.Type = deviceDisk
	case deviceDisk, deviceCDROM:
	default:
		return nil, badRequest("STORAGE_DEVICE_INVALID", "The device type '%s' is not valid.", r.Type)
	}
	if err := v.requireSettled(); err != nil {
		return nil, err
	}
	if r.Type == deviceCDROM && v.state != serverStopped {
		return nil, conflict("CDROM_HOTPLUG_UNSUPPORTED", "A CD-ROM drive can only be attached to a stopped server.")
	}
	var st *storage
	if r.Storage != "" || r.Type == deviceDisk {
		if st, err = s.attachable(v, r.Storage, r.Type); err != nil {
			return nil, err
		}
	}
	if err := v.checkDeviceLimits(); err != nil {
		return nil, err
	}
	address, err := freeAddress(r.Address, r.Type, func(a string) bool { return v.deviceAt(a) != nil })
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(address, busIDE) && v.state == serverStarted {
		return nil, serverStateIllegal(v, v.state)
	}
	s.plug(c, v, &device{address: address, kind: r.Type, storage: r.Storage, boot: r.BootDisk != 0}, st)
	return nil, nil
}

// attachable returns the storage, if it may be attached to the server now.
func (s *Simulator) attachable(v *server, uuid, deviceType string) (*storage, error) {
	if uuid == "" {
		return nil, badRequest("STORAGE_MISSING", "The required attribute 'storage' is missing from the request.")
	}
	st, err := s.storage(uuid)
	if err != nil {
		return nil, err
	}
	if deviceType == deviceCDROM {
		if st.kind != kindCDROM {
			return nil, conflict("STORAGE_TYPE_ILLEGAL", "The storage %s is of the type '%s', not '%s'.", uuid, st.kind, kindCDROM)
		}
		return st, nil
	}
	switch {
	case st.public():
		return nil, conflict("PUBLIC_STORAGE_ATTACH", "The storage %s is public and cannot be attached.", uuid)
	case st.kind != kindNormal:
		return nil, conflict("STORAGE_TYPE_ILLEGAL", "The storage %s is of the type '%s' and cannot be attached.", uuid,
			st.kind)
	case len(st.servers) > 0:
		return nil, conflict("STORAGE_ATTACHED_AS_DISK", "The storage %s is already attached to the server %s.", uuid,
			st.servers[0])
	case st.reserved != "":
		return nil, conflict("STORAGE_ATTACHED_AS_DISK", "The storage %s is already attached to the server %s.", uuid,
			st.reserved)
	case st.zone != v.zone:
		return nil, conflict("ZONE_MISMATCH", "The storage %s is in the zone %s, the server %s in %s.", uuid, st.zone,
			v.uuid, v.zone)
	}
	return st, requireOnline(st)
}

// plug makes the server go through maintenance and come out of it with the device; the answer waits for that.
func (s *Simulator) plug(c *call, v *server, dev *device, st *storage) {
	var work func(context.Context) error
	if st != nil && !st.public() {
		st.reserved = v.uuid
		if s.cfg.Disks != nil {
			server, disk, address := v.uuid, st.uuid, dev.address
			work = func(ctx context.Context) error { return s.cfg.Disks.Attach(ctx, server, disk, address) }
		}
	}
	s.changeDevices(c, v, work, func() {
		v.devices = append(v.devices, dev)
		if st != nil {
			st.servers = append(st.servers, v.uuid)
		}
	}, func() {
		if st != nil {
			st.reserved = ""
		}
	})
}

// changeDevices puts the server into maintenance for as long as plugging takes, does the work, then effect if the work
// went well, and always then. The request is answered with the server as it is after that.
func (s *Simulator) changeDevices(c *call, v *server, work func(context.Context) error, effect, always func()) {
	before, d := v.state, s.durationOf(realistic.hotplug)
	if before == serverStopped {
		d = s.durationOf(realistic.coldplug)
	}
	v.state, v.settles = serverMaintenance, before
	done := make(chan struct{})
	var failure error
	s.operate(d, work, func(err error) {
		defer close(done)
		if v.state == serverMaintenance {
			v.state = before
		}
		always()
		if _, exists := s.servers.get(v.uuid); !exists {
			failure = notFound("SERVER_NOT_FOUND", "The server %s does not exist.", v.uuid)
			return
		}
		if failure = planeFailed(err); failure == nil {
			effect()
		}
	})
	c.done = done
	c.then = func() (any, error) {
		if failure != nil {
			return nil, failure
		}
		return s.serverDetails(v), nil
	}
}

func (s *Simulator) detachStorage(c *call) (any, error) {
	v, err := s.server(c.path("uuid"))
	if err != nil {
		return nil, err
	}
	var req deviceRequest
	if err := c.decode(&req); err != nil {
		return nil, err
	}
	r := req.StorageDevice
	if r.Address == "" && r.Storage == "" {
		return nil, badRequest("ADDRESS_OR_UUID_REQUIRED", "Either the attribute 'address' or 'storage' is required.")
	}
	if err := v.requireSettled(); err != nil {
		return nil, err
	}
	dev := v.deviceAt(r.Address)
	if r.Address == "" {
		dev = v.deviceOf(r.Storage)
	}
	if dev == nil {
		return nil, conflict("DEVICE_ADDRESS_NOT_IN_USE", "The device address '%s%s' is not in use.", r.Address, r.Storage)
	}
	if v.state == serverStarted && (dev.kind == deviceCDROM || strings.HasPrefix(dev.address, busIDE)) {
		return nil, serverStateIllegal(v, v.state)
	}
	if st, ok := s.storages.get(dev.storage); ok && !st.public() {
		if err := requireOnline(st); err != nil {
			return nil, err
		}
	}
	s.changeDevices(c, v, s.unplugWork(v, dev), func() { s.unplug(v, dev) }, func() {})
	return nil, nil
}

// unplugWork is what must go well before the device is out of the server; nil: nothing.
func (s *Simulator) unplugWork(v *server, dev *device) func(context.Context) error {
	plane, ok := s.cfg.Disks.(DiskUnplugger)
	st, exists := s.storages.get(dev.storage)
	if !ok || !exists || st.public() {
		return nil
	}
	server, disk := v.uuid, st.uuid
	return func(ctx context.Context) error { return plane.Unplug(ctx, server, disk) }
}

// unplug takes the device out of the server, at once.
func (s *Simulator) unplug(v *server, dev *device) {
	v.devices = slices.DeleteFunc(v.devices, func(d *device) bool { return d == dev })
	st, ok := s.storages.get(dev.storage)
	if !ok {
		return
	}
	st.servers = slices.DeleteFunc(st.servers, func(uuid string) bool { return uuid == v.uuid })
	if s.cfg.Disks != nil && !st.public() {
		s.reportPlane("detach disk", st.uuid, s.cfg.Disks.Detach(v.uuid, st.uuid))
	}
}

// loadCDROM and ejectCDROM change the disc in the server's first CD-ROM drive.
func (s *Simulator) loadCDROM(c *call) (any, error) {
	var req deviceRequest
	v, drive, err := s.cdromDrive(c)
	if err != nil {
		return nil, err
	}
	if err := c.decode(&req); err != nil {
		return nil, err
	}
	st, err := s.attachable(v, req.StorageDevice.Storage, deviceCDROM)
	if err != nil {
		return nil, err
	}
	if drive.storage != "" {
		return nil, conflict("CDROM_DEVICE_IN_USE", "The CD-ROM drive of the server %s is not empty.", v.uuid)
	}
	drive.storage = st.uuid
	st.servers = append(st.servers, v.uuid)
	return s.serverDetails(v), nil
}

func (s *Simulator) ejectCDROM(c *call) (any, error) {
	v, drive, err := s.cdromDrive(c)
	if err != nil {
		return nil, err
	}
	if st, ok := s.storages.get(drive.storage); ok {
		st.servers = slices.DeleteFunc(st.servers, func(uuid string) bool { return uuid == v.uuid })
	}
	drive.storage = ""
	return s.serverDetails(v), nil
}

func (s *Simulator) cdromDrive(c *call) (*server, *device, error) {
	v, err := s.server(c.path("uuid"))
	if err != nil {
		return nil, nil, err
	}
	if err := v.requireSettled(); err != nil {
		return nil, nil, err
	}
	for _, dev := range v.devices {
		if dev.kind == deviceCDROM {
			return v, dev, nil
		}
	}
	return nil, nil, conflict("NO_CDROM_DEVICE", "The server %s has no CD-ROM drive.", v.uuid)
}
