package simulator

import (
	"context"
	"regexp"
	"slices"
)

type serverRequest struct {
	Server struct {
		BootOrder      string             `json:"boot_order"`
		CoreNumber     number             `json:"core_number"`
		Firewall       string             `json:"firewall"`
		Hostname       string             `json:"hostname"`
		Labels         *labelList         `json:"labels"`
		LoginUser      *loginUser         `json:"login_user"`
		MemoryAmount   number             `json:"memory_amount"`
		Metadata       *yesNo             `json:"metadata"`
		NICModel       string             `json:"nic_model"`
		Networking     *networkingRequest `json:"networking"`
		Plan           string             `json:"plan"`
		ServerGroup    string             `json:"server_group"`
		SimpleBackup   string             `json:"simple_backup"`
		StorageDevices serverDiskRequest  `json:"storage_devices"`
		Timezone       string             `json:"timezone"`
		Title          string             `json:"title"`
		UserData       string             `json:"user_data"`
		VideoModel     string             `json:"video_model"`
		RemoteAccess   *yesNo             `json:"remote_access_enabled"`
		RemoteType     string             `json:"remote_access_type"`
		RemotePassword string             `json:"remote_access_password"`
		Zone           string             `json:"zone"`
	} `json:"server"`
}

type loginUser struct {
	Username string `json:"username"`
	SSHKeys  struct {
		SSHKey []string `json:"ssh_key"`
	} `json:"ssh_keys"`
}

type serverDiskRequest struct {
	StorageDevice []serverDisk `json:"storage_device"`
}

type serverDisk struct {
	Action     string             `json:"action"`
	Address    string             `json:"address"`
	Encrypted  yesNo              `json:"encrypted"`
	Storage    string             `json:"storage"`
	Title      string             `json:"title"`
	Size       number             `json:"size"`
	Tier       string             `json:"tier"`
	Type       string             `json:"type"`
	BackupRule *backupRuleRequest `json:"backup_rule"`
	Labels     *[]Label           `json:"labels"`
}

// hostnamePattern sets no limit to a label: a recording has one of 64 characters.
var hostnamePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9-]*(\.[A-Za-z0-9][A-Za-z0-9-]*)*$`)

const maxHostname = 128

func checkHostname(h string) error {
	if h == "" {
		return badRequest("HOSTNAME_MISSING", "The required attribute 'hostname' is missing from the request.")
	}
	if len(h) > maxHostname || !hostnamePattern.MatchString(h) {
		return badRequest("HOSTNAME_INVALID", "The hostname '%s' is not valid.", h)
	}
	return nil
}

// createServer checks the whole request before anything is made.
func (s *Simulator) createServer(c *call) (any, error) {
	var req serverRequest
	if err := c.decode(&req); err != nil {
		return nil, err
	}
	v, err := s.newServer(&req)
	if err != nil {
		return nil, err
	}
	disks, err := s.planDisks(v, req.Server.StorageDevices.StorageDevice)
	if err != nil {
		return nil, err
	}
	ruled := func(p plannedDisk) bool { return p.storage.rule != backupRule{} }
	if v.simpleBackup != "no" && slices.ContainsFunc(disks, ruled) {
		return nil, conflict("BACKUP_RULE_CONFLICT", "A server with simple backups cannot have storages with backup rules.")
	}
	if err := s.addNICs(v, req.Server.Networking); err != nil {
		return nil, err
	}
	if len(v.nics)+len(disks) > maxDevicesAndNICs {
		s.dropNICs(v)
		return nil, conflict("STORAGE_DEVICE_LIMIT_REACHED",
			"A server has at most %d storage devices and network interfaces.", maxDevicesAndNICs)
	}
	if err := s.makeDisks(v, disks); err != nil {
		s.dropNICs(v)
		return nil, err
	}
	s.servers.put(v.uuid, v)
	if g, ok := s.groups.get(v.group); ok {
		g.servers = append(g.servers, v.uuid)
	}
	v.started, v.due = s.now(), s.now().Add(s.durationOf(realistic.serverCreate))
	s.after(s.durationOf(realistic.serverCreate), func() { s.serverCreated(v) })
	answer := s.serverDetails(v)
	answer.Server.Username, answer.Server.Password = "root", randomHex(8)
	answer.Server.Progress = "0"
	return answer, nil
}

// serverCreated starts the server once its time has come and every disk of it is filled and has appeared in it.
func (s *Simulator) serverCreated(v *server) {
	if v.pending > 0 || v.due.After(s.now()) || v.state != serverMaintenance {
		return
	}
	v.state = serverStarted
}

func (s *Simulator) newServer(req *serverRequest) (*server, error) {
	r := &req.Server
	if err := checkHostname(r.Hostname); err != nil {
		return nil, err
	}
	if r.Title == "" {
		return nil, badRequest("SERVER_TITLE_MISSING", "The required attribute 'title' is missing from the request.")
	}
	if len(r.Title) > maxTitle {
		return nil, badRequest("SERVER_TITLE_INVALID", "The attribute 'title' has more than %d characters.", maxTitle)
	}
	if err := s.checkZone(r.Zone); err != nil {
		return nil, err
	}
	if err := req.checkServerChoices(); err != nil {
		return nil, err
	}
	v := &server{
		uuid: s.newUUID(serverKind), hostname: r.Hostname, title: r.Title, zone: r.Zone, state: serverMaintenance,
		host: hostNumber(s.servers.len()), created: s.now(), userData: r.UserData,
		bootOrder: or(r.BootOrder, "disk"), firewall: or(r.Firewall, "off"), nicModel: or(r.NICModel, "virtio"),
		videoModel: or(r.VideoModel, "cirrus"), timezone: or(r.Timezone, "UTC"), simpleBackup: or(r.SimpleBackup, "no"),
		remoteAccessType: or(r.RemoteType, "vnc"), remoteAccessPassword: or(r.RemotePassword, randomHex(4)),
		metadata: r.Metadata != nil && bool(*r.Metadata), remoteAccess: r.RemoteAccess != nil && bool(*r.RemoteAccess),
	}
	if r.LoginUser != nil {
		v.sshKeys = r.LoginUser.SSHKeys.SSHKey
	}
	if r.Labels != nil {
		if err := checkLabels(r.Labels.Label); err != nil {
			return nil, err
		}
		v.labels = r.Labels.Label
	}
	if r.ServerGroup != "" {
		if _, err := s.serverGroup(r.ServerGroup); err != nil {
			return nil, err
		}
		v.group = r.ServerGroup
	}
	if err := s.place(v, 0, 0); err != nil {
		return nil, err
	}
	if err := v.setPlan(r.Plan, int(r.CoreNumber), int(r.MemoryAmount)); err != nil {
		return nil, err
	}
	return v, s.checkServerLimits(v, v.cores, v.memory)
}

func or(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

// setPlan sets plan, cores and memory as asked for: what is not asked for is one core and 1 GiB of plan custom.
func (v *server) setPlan(name string, cores, memory int) error {
	if name == "" {
		name = customPlan
	}
	if name == customPlan {
		if cores == 0 {
			cores = 1
		}
		if memory == 0 {
			memory = 1024
		}
		if err := checkServerSize(cores, memory); err != nil {
			return err
		}
		v.plan, v.cores, v.memory = name, cores, memory
		return nil
	}
	p, ok := planByName(name)
	if !ok {
		return notFound("PLAN_NOT_FOUND", "The plan %s does not exist.", name)
	}
	if cores != 0 && cores != p.CoreNumber {
		return badRequest("PLAN_CORE_NUMBER_ILLEGAL", "The plan %s has %d cores.", name, p.CoreNumber)
	}
	if memory != 0 && memory != p.MemoryAmount {
		return badRequest("PLAN_MEMORY_AMOUNT_ILLEGAL", "The plan %s has %d MiB of memory.", name, p.MemoryAmount)
	}
	v.plan, v.cores, v.memory = p.Name, p.CoreNumber, p.MemoryAmount
	return nil
}

// plannedDisk is a disk of a server that is being created.
type plannedDisk struct {
	storage *storage
	from    *storage // to be cloned; nil: none
	create  bool     // storage is to be made empty
	device  *device
}

// planDisks checks the disks asked for, and makes nothing.
func (s *Simulator) planDisks(v *server, asked []serverDisk) ([]plannedDisk, error) {
	if len(asked) > maxStorageDevices {
		return nil, conflict("STORAGE_DEVICE_LIMIT_REACHED", "A server has at most %d storage devices.", maxStorageDevices)
	}
	var out []plannedDisk
	taken := func(a string) bool {
		return slices.ContainsFunc(out, func(p plannedDisk) bool { return p.device.address == a })
	}
	for _, r := range asked {
		p, err := s.planDisk(v, r)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(out, func(o plannedDisk) bool { return o.storage == p.storage }) {
			return nil, badRequest("STORAGE_DEVICES_INVALID", "The storage %s is given twice.", r.Storage)
		}
		address, err := freeAddress(r.Address, or(r.Type, deviceDisk), taken)
		if err != nil {
			return nil, err
		}
		p.device = &device{address: address, kind: or(r.Type, deviceDisk), storage: p.storage.uuid}
		out = append(out, p)
	}
	return out, nil
}

func (s *Simulator) planDisk(v *server, r serverDisk) (plannedDisk, error) {
	rule, err := r.BackupRule.rule()
	if err != nil {
		return plannedDisk{}, err
	}
	spec := diskSpec{title: r.Title, zone: v.zone, tier: r.Tier, size: int(r.Size), encrypted: bool(r.Encrypted)}
	var p plannedDisk
	switch r.Action {
	case "attach":
		p.storage, err = s.attachable(v, r.Storage, or(r.Type, deviceDisk))
		return p, err
	case "create":
		if err := checkTitle(r.Title); err != nil {
			return p, err
		}
		p.create = true
		p.storage, err = s.newDisk(spec)
	case "clone":
		if err := checkTitle(r.Title); err != nil {
			return p, err
		}
		if p.from, err = s.storage(r.Storage); err != nil {
			return p, err
		}
		if err := requireOnline(p.from); err != nil {
			return p, err
		}
		if p.from.templateType == "cloud-init" && !v.metadata {
			return p, badRequest("METADATA_DISABLED_ON_CLOUD-INIT", "The template %s needs the metadata service.", p.from.uuid)
		}
		p.storage, err = s.newClone(p.from, spec)
	case "":
		return p, badRequest("ACTION_MISSING", "The required attribute 'action' is missing from the request.")
	default:
		return p, badRequest("ACTION_INVALID", "The action '%s' is not valid.", r.Action)
	}
	if err != nil {
		return p, err
	}
	p.storage.rule = rule
	if r.Labels != nil {
		if err := checkLabels(*r.Labels); err != nil {
			return p, err
		}
		p.storage.labels = append(p.storage.labels, *r.Labels...)
	}
	return p, nil
}

// makeDisks makes the disks that planDisks let pass, and puts them into the server.
func (s *Simulator) makeDisks(v *server, disks []plannedDisk) error {
	for _, p := range disks {
		if p.create {
			if err := s.createDisk(p.storage); err != nil {
				return err
			}
		}
	}
	for _, p := range disks {
		s.storages.put(p.storage.uuid, p.storage)
		p.storage.servers = append(p.storage.servers, v.uuid)
		v.devices = append(v.devices, p.device)
		v.pending++
		s.followRule(p.storage)
		if p.from != nil {
			s.startCopy(p.from, p.storage, storageCloning, func() { s.insertDisk(v, p) })
			continue
		}
		s.insertDisk(v, p)
	}
	return nil
}

// insertDisk makes a disk appear in the server that is created with it.
func (s *Simulator) insertDisk(v *server, p plannedDisk) {
	inserted := func(err error) {
		v.pending--
		if err != nil || p.storage.state == storageError {
			s.reportPlane("attach disk", p.storage.uuid, err)
			v.state = serverError
		}
		s.serverCreated(v)
	}
	var work func(context.Context) error
	if s.cfg.Disks != nil && !p.storage.public() && p.storage.state == storageOnline {
		server, disk, address := v.uuid, p.storage.uuid, p.device.address
		work = func(ctx context.Context) error { return s.cfg.Disks.Attach(ctx, server, disk, address) }
	}
	s.operate(0, work, inserted)
}
