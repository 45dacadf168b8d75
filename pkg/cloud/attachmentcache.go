package cloud

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"
)

// attachmentCache remembers where the account's disks were seen attached. Two answers of the API say it: a storage names
// its servers, and a server names all its disks, so that one call is enough for many volumes. No list has either.
//
// Of two answers the one counts that was asked for later. Neither says anything about what changed after it was asked for.
type attachmentCache struct {
	now func() time.Time

	mu    sync.Mutex
	disks map[string]*seenDisk // by UUID of the storage
	asked map[string]time.Time // when each server was last asked, whether it answered or not, by UUID
	// What was seen earlier must be looked at again before it is believed: see survey.
	attachedSince, detachedSince time.Time
}

// seenDisk is what is known of one disk.
type seenDisk struct {
	known   bool // false: it may be attached to any server, or to none
	servers []string
	looked  time.Time // when the answer was asked for that says so
	voided  time.Time // answers that were asked for earlier do not count: it has left its server, or was moved by this process
	system  bool      // a server boots from it
	wanted  bool      // it was asked for by its ID
	failing time.Time // when the first of the looks at it failed that have failed since the last answer; zero: none
}

func newAttachmentCache(now func() time.Time) *attachmentCache {
	return &attachmentCache{now: now, disks: map[string]*seenDisk{}, asked: map[string]time.Time{}}
}

// disk returns what is known of a disk. The caller holds the lock.
func (a *attachmentCache) disk(id string) *seenDisk {
	disk, found := a.disks[id]
	if !found {
		disk = &seenDisk{}
		a.disks[id] = disk
	}
	return disk
}

// see notes an answer, unless a later one is known.
func (d *seenDisk) see(servers []string, looked time.Time) (noted bool) {
	if looked.Before(d.voided) || looked.Before(d.looked) {
		return false
	}
	d.known, d.servers, d.looked, d.failing = true, servers, looked, time.Time{}
	return true
}

// void forgets where the disk is, and every answer that was asked for before that moment.
func (d *seenDisk) void(moment time.Time) {
	d.known, d.servers = false, nil
	if d.voided.Before(moment) {
		d.voided = moment
	}
}

func (d *seenDisk) at(server string) bool { return d.known && slices.Contains(d.servers, server) }

// sawDisk notes what a storage says of its servers.
func (a *attachmentCache) sawDisk(id string, servers []string, looked time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	named := make([]string, len(servers))
	for i, server := range servers {
		named[i] = canonicalID(server)
	}
	a.disk(id).see(named, looked)
}

// sawServer notes which disks a server has. A disk that it had before and no longer has may be anywhere: the storage must
// say where.
func (a *attachmentCache) sawServer(server *upcloud.ServerDetails, looked time.Time) {
	id := canonicalID(server.UUID)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.asked[id].Before(looked) {
		a.asked[id] = looked
	}
	has := map[string]bool{}
	for i := range server.StorageDevices {
		device := &server.StorageDevices[i]
		if device.Type != upcloud.StorageTypeDisk {
			continue
		}
		storage := canonicalID(device.UUID)
		has[storage] = true
		disk := a.disk(storage)
		servers := []string{id}
		if disk.at(id) {
			servers = disk.servers
		}
		if disk.see(servers, looked) {
			disk.system = isSystemDisk(server.StorageDevices, device)
		}
	}
	a.left(id, looked, func(storage string) bool { return !has[storage] })
}

// left notes that disks are no longer at a server. The caller holds the lock.
func (a *attachmentCache) left(server string, looked time.Time, has func(storage string) bool) {
	for storage, disk := range a.disks {
		if disk.at(server) && !looked.Before(disk.looked) && has(storage) {
			disk.void(looked)
		}
	}
}

// serverGone notes that a server does not exist: a disk that it had may be anywhere.
func (a *attachmentCache) serverGone(id string, looked time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.asked, id)
	a.left(id, looked, func(string) bool { return true })
}

// isSystemDisk reports whether a server boots from the device. The API marks it where someone has chosen it; in its
// recordings no disk is marked. Then it is what sits at the first address of its bus.
func isSystemDisk(devices upcloud.ServerStorageDeviceSlice, device *upcloud.ServerStorageDevice) bool {
	marked := slices.ContainsFunc(devices, func(d upcloud.ServerStorageDevice) bool { return d.BootDisk == 1 })
	if marked || device.PartOfPlan == "yes" {
		return device.BootDisk == 1 || device.PartOfPlan == "yes"
	}
	_, slot, _ := strings.Cut(device.Address, ":")
	return slot != "" && strings.Trim(slot, "0:") == ""
}

// want marks a disk as a volume of this cluster: it was asked for by its ID, as is a volume that someone made by hand.
func (a *attachmentCache) want(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.disk(id).wanted = true
}

func (a *attachmentCache) isWanted(id string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	disk, found := a.disks[id]
	return found && disk.wanted
}

// changed says that this process is about to attach or detach a volume: what was seen before says nothing any more.
func (a *attachmentCache) changed(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	disk := a.disk(id)
	disk.wanted = true
	disk.void(a.now())
}

// moved says how the change ended that changed announced: a volume was attached to the server, or detached from it. Looks that
// were begun before its end do not count. Where a volume is that was detached is known if it was seen since the beginning.
func (a *attachmentCache) moved(op, id, server string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	disk, now := a.disk(id), a.now()
	known, servers := disk.known, disk.servers
	disk.void(now)
	switch {
	case err != nil:
	case op == opAttach:
		disk.see([]string{server}, now)
	case known:
		disk.see(slices.DeleteFunc(slices.Clone(servers), func(s string) bool { return s == server }), now)
	}
}

// believed returns where a disk is, and false where a look has to say it.
func (a *attachmentCache) believed(id string) (servers []string, known bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	disk, found := a.disks[id]
	if !found || !a.isFresh(disk) {
		return nil, false
	}
	return slices.Clone(disk.servers), true
}

func (a *attachmentCache) isFresh(disk *seenDisk) bool {
	if len(disk.servers) == 0 {
		return disk.known && !disk.looked.Before(a.detachedSince)
	}
	return disk.known && !disk.looked.Before(a.attachedSince)
}

// lastSeen returns where a disk was seen last, however long ago, and whether a server boots from it.
func (a *attachmentCache) lastSeen(id string) (servers []string, system, known bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	disk, found := a.disks[id]
	if !found || !disk.known {
		return nil, false, false
	}
	return slices.Clone(disk.servers), disk.system, true
}

// deleted forgets a disk that does not exist. Passes forget such disks as well, but there are none where nothing lists volumes.
func (a *attachmentCache) deleted(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.disks, id)
}

// failed notes that a disk could not be looked at, and returns for how long that has been so.
func (a *attachmentCache) failed(id string) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	disk, now := a.disk(id), a.now()
	if disk.failing.IsZero() {
		disk.failing = now
	}
	return now.Sub(disk.failing)
}

// begin prepares for a pass: from now on what is seen for longer than noticeWithin, or would be in the next pass, is not
// believed until it is looked at again. That a disk is attached to nothing is believed for as long as there are passes: they
// notice when a server has it. After a pause they may have missed that.
func (a *attachmentCache) begin(now time.Time, period time.Duration, afterPause bool, disks []*Volume) {
	there := make(map[string]bool, len(disks))
	for _, disk := range disks {
		there[disk.ID] = true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	oldest := now.Add(-noticeWithin)
	a.attachedSince = oldest.Add(period)
	if afterPause {
		a.detachedSince = oldest
	}
	for id, disk := range a.disks {
		// One that is not listed may be newer than the list.
		if !there[id] && disk.looked.Before(oldest) && disk.voided.Before(oldest) && disk.failing.Before(oldest) {
			delete(a.disks, id)
		}
	}
}

// holders returns the servers that had any of the volumes when they were seen last, and those of them that must be asked now,
// as what is known of a volume is too old.
func (a *attachmentCache) holders(ids []string) (all []askedServer, due []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	fresh := map[string]bool{}
	for _, id := range ids {
		disk, found := a.disks[id]
		if !found {
			continue
		}
		for _, server := range disk.servers {
			others, seen := fresh[server]
			fresh[server] = a.isFresh(disk) && (others || !seen)
		}
	}
	for server, isFresh := range fresh {
		all = append(all, askedServer{id: server, asked: a.asked[server]})
		if !isFresh {
			due = append(due, server)
		}
	}
	return all, due
}

// without returns those of the servers that had none of the volumes when they were seen last.
func (a *attachmentCache) without(ids, servers []string) []askedServer {
	holders, _ := a.holders(ids)
	a.mu.Lock()
	defer a.mu.Unlock()
	has := make(map[string]bool, len(holders))
	for _, holder := range holders {
		has[holder.id] = true
	}
	var others []askedServer
	for _, server := range servers {
		if !has[server] {
			others = append(others, askedServer{id: server, asked: a.asked[server]})
		}
	}
	return others
}

// unknown lists those of the volumes that must be looked at.
func (a *attachmentCache) unknown(ids []string) []string {
	return slices.DeleteFunc(slices.Clone(ids), func(id string) bool {
		_, known := a.believed(id)
		return known
	})
}

// ask notes that a server is being asked, and reports whether it has not been asked since that moment.
func (a *attachmentCache) ask(server string, since time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if asked, found := a.asked[server]; found && !asked.Before(since) {
		return false
	}
	a.asked[server] = a.now()
	return true
}

// forgetServers forgets when servers were asked that are not in the list, nor were asked of late.
func (a *attachmentCache) forgetServers(listed []string, oldest time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	there := make(map[string]bool, len(listed))
	for _, id := range listed {
		there[id] = true
	}
	maps.DeleteFunc(a.asked, func(id string, asked time.Time) bool { return !there[id] && asked.Before(oldest) })
}
