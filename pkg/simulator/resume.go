package simulator

import (
	"errors"
	"net/netip"
)

// resume brings a state that was kept back to life: data planes get what they had, and what was under way goes on from
// the step that it had reached. The lock is held.
func (s *Simulator) resume() error {
	if err := s.resumeDisks(); err != nil {
		return err
	}
	for v := range s.servers.all() {
		s.resumeServer(v)
	}
	for r := range s.routers.all() {
		s.carryRoutes(r.uuid)
	}
	s.resumeCopies()
	for st := range s.storages.all() {
		s.resumeStorage(st)
	}
	for i := range s.imports.all() {
		s.resumeImport(i)
	}
	for f := range s.fileStorages.all() {
		s.resumeFileStorage(f)
	}
	for b := range s.bundles.all() {
		if b.OperationalState != bundleIdle {
			b.OperationalState = bundleIdle // its challenge starts again
		} else if b.Type == bundleDynamic && b.Certificate != "" {
			s.renewLater(b)
		}
	}
	for lb := range s.loadBalancers.all() {
		s.resumeLoadBalancer(lb)
	}
	s.issueCertificates()
	return nil
}

// resumeDisks has the disk plane attach what is attached, and compares what it has with what the state has.
func (s *Simulator) resumeDisks() error {
	if s.cfg.Disks == nil {
		return nil
	}
	plane, ok := s.cfg.Disks.(DiskKeeper)
	if !ok {
		return errors.New("state: the disks are of a kind that does not outlive the simulator")
	}
	known := map[string]KeptDisk{}
	for st := range s.storages.all() {
		if st.public() {
			continue
		}
		disk := KeptDisk{Size: st.size}
		if len(st.servers) > 0 {
			disk.Server = st.servers[0]
		}
		known[st.uuid] = disk
	}
	missing, unknown, err := plane.Keep(known, !s.restored.Disks)
	if err != nil {
		return err
	}
	for _, path := range unknown {
		s.reportPlane("know disk", path, errors.New("the file is of no storage that was kept: delete it, or look what is in it"))
	}
	for _, uuid := range missing {
		st, _ := s.storages.get(uuid)
		if _, copying := s.copies[uuid]; !copying {
			st.state = storageError
			s.reportPlane("find disk", uuid, errors.New("its file is missing: the storage is in the state error"))
		}
	}
	return nil
}

// attachDisk makes a disk appear in its server again.
func (s *Simulator) attachDisk(v *server, dev *device) {
	st, ok := s.storages.get(dev.storage)
	if s.cfg.Disks == nil || !ok || st.public() || st.state == storageError {
		return
	}
	if _, copying := s.copies[st.uuid]; copying && v.pending > 0 {
		return // appears once it is filled
	}
	if err := s.cfg.Disks.Attach(s.ctx, v.uuid, st.uuid, dev.address); err != nil {
		st.state = storageError
		s.reportPlane("attach disk", st.uuid, err)
	}
}

// resumeServer ends what the server was in the middle of.
func (s *Simulator) resumeServer(v *server) {
	for _, dev := range v.devices {
		s.attachDisk(v, dev)
	}
	if !v.busy && v.state != serverMaintenance {
		return
	}
	settled := or(v.settles, serverStarted)
	if v.pending > 0 { // it was being created
		v.pending, v.due = 0, s.now()
		for _, dev := range v.devices {
			if _, copying := s.copies[dev.storage]; copying {
				v.pending++
			}
		}
		if v.pending > 0 {
			return // the last of the copies starts it
		}
	}
	s.after(s.durationOf(realistic.serverStop), func() {
		if v.busy || v.state == serverMaintenance {
			v.busy, v.state = false, settled
		}
	})
}

// resumeCopies starts copies from the beginning that were under way.
func (s *Simulator) resumeCopies() {
	copies := s.copies
	s.copies = map[string]diskCopy{}
	for uuid, c := range copies {
		to, ok := s.storages.get(uuid)
		from, there := s.storages.get(c.From)
		if !ok || !there {
			if ok {
				to.state = storageError
			}
			continue
		}
		if len(to.servers) == 0 || from.public() {
			s.reportPlane("delete half a disk", to.uuid, s.deleteDisk(to))
		}
		s.startCopy(from, to, c.Busy, func() { s.copyResumed(to) })
	}
}

func (s *Simulator) deleteDisk(st *storage) error {
	if s.cfg.Disks == nil {
		return nil
	}
	return s.cfg.Disks.Delete(st.uuid)
}

// copyResumed makes a disk that a server was being created with appear in it.
func (s *Simulator) copyResumed(to *storage) {
	for _, uuid := range to.servers {
		v, ok := s.servers.get(uuid)
		if !ok || v.pending == 0 {
			continue
		}
		v.pending--
		if dev := v.deviceOf(to.uuid); dev != nil {
			s.attachDisk(v, dev)
		}
		s.serverCreated(v)
	}
}

// resumeStorage ends what the storage was in the middle of. An attach that had no answer yet has not happened; whatever
// else was writing to it did not finish.
func (s *Simulator) resumeStorage(st *storage) {
	st.reserved = ""
	s.followRule(st)
	if _, copying := s.copies[st.uuid]; copying || st.public() {
		return
	}
	switch st.state {
	case storageCloning, storageBackuping:
		if !s.isCopied(st) {
			st.state = storageOnline
		}
	case storageMaintenance:
		i, importing := s.imports.get(st.uuid)
		if !s.isCopied(st) && (!importing || i.over()) {
			st.state = storageError
		}
	}
}

// isCopied says whether a copy of the storage is being made.
func (s *Simulator) isCopied(st *storage) bool {
	for _, c := range s.copies {
		if c.From == st.uuid {
			return true
		}
	}
	return false
}

func (s *Simulator) resumeLoadBalancer(lb *loadBalancer) {
	lb.applying, lb.again = false, false
	if lb.deleting {
		s.tearDownLoadBalancer(lb, indexOfStep(deleteSteps, lb.OperationalState))
		return
	}
	if err := s.listenAgain(lb); err != nil {
		s.reportPlane("listen for load balancer", lb.UUID, err)
		lb.fail(s)
		return
	}
	if lb.ready {
		s.applyLoadBalancer(lb)
		return
	}
	s.setUpLoadBalancer(lb, indexOfStep(setupSteps, lb.stage))
}

// listenAgain has the data plane listen where the load balancer did; where it cannot, the API shows the new address.
func (s *Simulator) listenAgain(lb *loadBalancer) error {
	if s.cfg.LoadBalancers == nil {
		return nil
	}
	lb.LoadBalancer = lb.LoadBalancer.clone()
	for i := range lb.Nodes {
		for j := range lb.Nodes[i].Networks {
			for k := range lb.Nodes[i].Networks[j].IPAddresses {
				a := &lb.Nodes[i].Networks[j].IPAddresses[k]
				proposed, err := netip.ParseAddr(a.Address)
				if err != nil || !a.Listen {
					continue
				}
				listening, err := s.cfg.LoadBalancers.Listen(proposed)
				if err != nil {
					return err
				}
				a.Address = listening.String()
			}
		}
	}
	for address, proposed := range lb.floating {
		listening, err := s.cfg.LoadBalancers.Listen(proposed)
		if err != nil {
			return err
		}
		lb.floating[address] = listening
	}
	return nil
}

// diskCopy is a copy of a disk that is being made.
type diskCopy struct {
	From string // UUID of the storage that is copied
	Busy string // state that it is in meanwhile
}

// copying notes that a disk is being filled, so that this can start anew in another process, until it is done.
func (s *Simulator) copying(from, to *storage, busy string) (done func()) {
	if s.copies == nil {
		s.copies = map[string]diskCopy{}
	}
	s.copies[to.uuid] = diskCopy{From: from.uuid, Busy: busy}
	return func() { delete(s.copies, to.uuid) }
}
