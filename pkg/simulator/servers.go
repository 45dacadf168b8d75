package simulator

import (
	"time"
)

// States of a server.
const (
	serverStarted     = "started"
	serverStopped     = "stopped"
	serverMaintenance = "maintenance"
	serverError       = "error"
)

type server struct {
	uuid, hostname, title, zone string
	plan                        string
	cores, memory               int // memory in MiB
	state                       string
	busy                        bool // a stop or restart is under way, though the state does not show it yet
	host                        int64
	created                     time.Time
	labels                      []Label
	tags                        []string
	group                       string
	metadata                    bool
	userData                    string
	sshKeys                     []string
	bootOrder, firewall         string
	nicModel, videoModel        string
	timezone, simpleBackup      string
	remoteAccess                bool
	remoteAccessType            string
	remoteAccessPassword        string
	devices                     []*device
	nics                        []*nic
	rules                       []firewallRule

	started, due time.Time // of its creation, for the progress shown
	settles      string    // the state that comes after the passing one; empty: started
	pending      int       // disks that have not appeared in it yet, of those it is created with
}

// device is a storage in a server, or an empty CD-ROM drive.
type device struct {
	address string // "virtio:0"
	kind    string // disk or cdrom
	storage string // UUID; empty: a CD-ROM drive without a disc
	boot    bool
}

// requireSettled refuses servers that are in the middle of something.
func (v *server) requireSettled() error {
	if v.busy || v.state != serverStarted && v.state != serverStopped {
		state := v.state
		if v.busy {
			state = serverMaintenance
		}
		return serverStateIllegal(v, state)
	}
	return nil
}

func (v *server) requireState(state string) error {
	if err := v.requireSettled(); err != nil {
		return err
	}
	if v.state != state {
		return serverStateIllegal(v, v.state)
	}
	return nil
}

func serverStateIllegal(v *server, state string) error {
	return conflict("SERVER_STATE_ILLEGAL", "The server %s is in the state '%s', in which this is not possible.", v.uuid,
		state)
}

// serverEntry is a server in lists.
type serverEntry struct {
	CoreNumber    string    `json:"core_number"`
	Created       int64     `json:"created"`
	Host          int64     `json:"host,omitempty"` // while it is on one
	Hostname      string    `json:"hostname"`
	Labels        labelList `json:"labels"`
	License       int       `json:"license"`
	MemoryAmount  string    `json:"memory_amount"`
	Plan          string    `json:"plan"`
	PlanIPv4Bytes string    `json:"plan_ipv4_bytes"`
	PlanIPv6Bytes string    `json:"plan_ipv6_bytes"`
	Progress      string    `json:"progress,omitempty"`
	ServerGroup   *string   `json:"server_group"`
	SimpleBackup  string    `json:"simple_backup"`
	State         string    `json:"state"`
	Tags          tagList   `json:"tags"`
	Title         string    `json:"title"`
	UUID          string    `json:"uuid"`
	Zone          string    `json:"zone"`
}

type labelList struct {
	Label []Label `json:"label"`
}

type tagList struct {
	Tag []string `json:"tag"`
}

// serverDetails is a server on its own.
type serverDetails struct {
	serverEntry
	BootOrder            string        `json:"boot_order"`
	Devices              deviceList    `json:"devices"`
	Firewall             string        `json:"firewall"`
	IPAddresses          addressList   `json:"ip_addresses"`
	Metadata             yesNo         `json:"metadata"`
	NICModel             string        `json:"nic_model"`
	Networking           networking    `json:"networking"`
	Password             string        `json:"password,omitempty"` // in the answer to the creation alone
	RemoteAccessEnabled  yesNo         `json:"remote_access_enabled"`
	RemoteAccessPassword string        `json:"remote_access_password"`
	RemoteAccessType     string        `json:"remote_access_type"`
	StorageDevices       storageInList `json:"storage_devices"`
	Timezone             string        `json:"timezone"`
	Username             string        `json:"username,omitempty"` // in the answer to the creation alone
	VideoModel           string        `json:"video_model"`
}

// deviceList is of GPUs and the like; the simulated servers have none.
type deviceList struct {
	Device []struct{} `json:"device"`
}

type storageInList struct {
	StorageDevice []storageDeviceEntry `json:"storage_device"`
}

type storageDeviceEntry struct {
	Address          string  `json:"address"`
	BootDisk         string  `json:"boot_disk"`
	Labels           []Label `json:"labels"`
	Storage          string  `json:"storage"`
	StorageEncrypted yesNo   `json:"storage_encrypted"`
	StorageSize      int     `json:"storage_size"`
	StorageTier      string  `json:"storage_tier,omitempty"`
	StorageTitle     string  `json:"storage_title"`
	Type             string  `json:"type"`
}

type serverAnswer struct {
	Server serverDetails `json:"server"`
}

type serverList struct {
	Servers struct {
		Server []serverEntry `json:"server"`
	} `json:"servers"`
}

func (s *Simulator) serverEntry(v *server) serverEntry {
	e := serverEntry{
		CoreNumber: itoa(v.cores), Created: v.created.Unix(), Hostname: v.hostname,
		Labels: labelList{labelsOrNone(v.labels)}, MemoryAmount: itoa(v.memory), Plan: v.plan,
		PlanIPv4Bytes: "0", PlanIPv6Bytes: "0", SimpleBackup: v.simpleBackup, State: v.state,
		Tags: tagList{append([]string{}, v.tags...)}, Title: v.title, UUID: v.uuid, Zone: v.zone,
	}
	if v.state != serverStopped {
		e.Host = v.host
	}
	if v.group != "" {
		e.ServerGroup = &v.group
	}
	if v.state == serverMaintenance && v.due.After(s.now()) {
		e.Progress = progress(v.started, v.due, s.now())
	}
	return e
}

func (s *Simulator) serverDetails(v *server) serverAnswer {
	d := serverDetails{
		serverEntry: s.serverEntry(v), BootOrder: v.bootOrder, Devices: deviceList{[]struct{}{}}, Firewall: v.firewall,
		Metadata: yesNo(v.metadata), NICModel: v.nicModel, RemoteAccessEnabled: yesNo(v.remoteAccess),
		RemoteAccessPassword: v.remoteAccessPassword, RemoteAccessType: v.remoteAccessType,
		Timezone: v.timezone, VideoModel: v.videoModel,
	}
	d.StorageDevices.StorageDevice = make([]storageDeviceEntry, 0, len(v.devices))
	for _, dev := range v.devices {
		d.StorageDevices.StorageDevice = append(d.StorageDevices.StorageDevice, s.deviceEntry(dev))
	}
	d.IPAddresses.IPAddress = shortAddresses(v)
	d.Networking = networkingOf(v)
	return serverAnswer{d}
}

func (s *Simulator) deviceEntry(dev *device) storageDeviceEntry {
	e := storageDeviceEntry{Address: dev.address, BootDisk: "0", Labels: []Label{}, Storage: dev.storage, Type: dev.kind}
	if dev.boot {
		e.BootDisk = "1"
	}
	if st, ok := s.storages.get(dev.storage); ok {
		e.Labels = labelsOrNone(st.labels)
		e.StorageEncrypted = yesNo(st.encrypted)
		e.StorageSize, e.StorageTier, e.StorageTitle = st.size, st.tier, st.title
	}
	return e
}

// server returns the server a path names.
func (s *Simulator) server(uuid string) (*server, error) {
	if !validUUID(uuid) {
		return nil, badRequest("SERVER_INVALID", "The server UUID is invalid.")
	}
	v, ok := s.servers.get(uuid)
	if !ok {
		return nil, notFound("SERVER_NOT_FOUND", "The server %s does not exist.", uuid)
	}
	return v, nil
}

func (s *Simulator) listServers(c *call) (any, error) {
	filters := labelFilters(c.request.URL.Query())
	var out serverList
	out.Servers.Server = make([]serverEntry, 0, s.servers.len())
	for v := range s.servers.all() {
		if matchLabels(v.labels, filters) {
			out.Servers.Server = append(out.Servers.Server, s.serverEntry(v))
		}
	}
	return out, nil
}

func (s *Simulator) getServer(c *call) (any, error) {
	v, err := s.server(c.path("uuid"))
	if err != nil {
		return nil, err
	}
	return s.serverDetails(v), nil
}

func (s *Simulator) deleteServer(c *call) (any, error) {
	v, err := s.server(c.path("uuid"))
	if err != nil {
		return nil, err
	}
	policy, err := backupPolicy(c.query("backups"))
	if err != nil {
		return nil, err
	}
	if err := v.requireState(serverStopped); err != nil {
		return nil, err
	}
	withStorages := c.query("storages") == "1" || c.query("storages") == "true"
	disks := s.ownDisks(v)
	if withStorages {
		for _, st := range disks {
			if err := s.checkDeletable(st, policy); err != nil {
				return nil, err
			}
		}
	}
	s.removeServer(v)
	if withStorages {
		for _, st := range disks {
			s.removeStorage(st, policy)
		}
	}
	return nil, nil
}

// ownDisks are the storages in the server that are the account's.
func (s *Simulator) ownDisks(v *server) []*storage {
	var out []*storage
	for _, dev := range v.devices {
		if st, ok := s.storages.get(dev.storage); ok && !st.public() {
			out = append(out, st)
		}
	}
	return out
}

func (s *Simulator) removeServer(v *server) {
	for _, dev := range append([]*device{}, v.devices...) {
		s.unplug(v, dev)
	}
	for _, n := range append([]*nic{}, v.nics...) {
		s.removeNIC(n)
	}
	s.leaveGroup(v)
	s.servers.remove(v.uuid)
}

// RemoveServer makes a server disappear as if a person had deleted it in the control panel, whatever its state; its
// storages stay. It is for tests of what must happen then.
func (s *Simulator) RemoveServer(uuid string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := s.server(uuid)
	if err != nil {
		return err
	}
	s.changing()
	s.removeServer(v)
	return nil
}

// SetServerState puts a server into a state such as `error` or `stopped`, for tests.
func (s *Simulator) SetServerState(uuid, state string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := s.server(uuid)
	if err != nil {
		return err
	}
	switch state {
	case serverStarted, serverStopped, serverMaintenance, serverError:
		s.changing()
		v.state, v.busy = state, false
		return nil
	}
	return badRequest("INVALID_REQUEST", "A server has no state '%s'.", state)
}
