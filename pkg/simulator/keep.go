package simulator

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// stateFormat is the version of the state file. It changes when an older file would be misread.
const stateFormat = 1

const stateFile = "state.json"

// keeper keeps the state in a folder.
type keeper struct {
	dir     string
	lock    *os.File
	unsaved chan struct{} // holds one when there has been a change since the last writing
	saved   chan struct{} // closed when no more is written
}

// keptState is the state file.
type keptState struct {
	Format        int             `json:"format"`
	Written       time.Time       `json:"written"`
	Now           time.Time       `json:"now"` // by the simulated clock
	PublicNetwork string          `json:"public_network"`
	Disks         bool            `json:"disks"` // storages have bytes
	State         json.RawMessage `json:"state"`
}

// openState takes the folder for this simulator, and the state that is there, if any.
func (s *Simulator) openState() error {
	k := &keeper{dir: s.cfg.StateDir, unsaved: make(chan struct{}, 1), saved: make(chan struct{})}
	if err := os.MkdirAll(k.dir, 0o700); err != nil {
		return fmt.Errorf("state: %w: name a folder that can be written", err)
	}
	lock, err := lockFile(filepath.Join(k.dir, "lock"))
	if err != nil {
		return fmt.Errorf("state: the folder %s is in use: %w: stop the other simulator, or name another folder", k.dir, err)
	}
	k.lock = lock
	if err := s.readState(filepath.Join(k.dir, stateFile)); err != nil {
		return errors.Join(err, lock.Close())
	}
	s.keeper = k
	return nil
}

func (s *Simulator) readState(path string) error {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("state: %w", err)
	}
	unusable := func(why error) error {
		return fmt.Errorf("state: the file %s cannot be used: %w: put back a copy that can, "+
			"or move the file away to start with an empty account", path, why)
	}
	var kept keptState
	if err := json.Unmarshal(text, &kept); err != nil {
		return unusable(err)
	}
	if kept.Format != stateFormat {
		return unusable(fmt.Errorf("it has the format %d, and this program reads %d", kept.Format, stateFormat))
	}
	if own := s.cfg.PublicNetwork.Masked().String(); kept.PublicNetwork != own {
		return fmt.Errorf("state: the addresses in %s are of the public network %s, not of %s: start with that network, "+
			"or with another folder", path, kept.PublicNetwork, own)
	}
	if kept.Disks && s.cfg.Disks == nil {
		return fmt.Errorf("state: the storages in %s have bytes: start with disks, or with another folder", path)
	}
	st, err := decodeGraph[state](kept.State)
	if err != nil {
		return unusable(err)
	}
	st.addMissing(&s.state)
	s.state = *st
	if clock, ok := s.clock.(*ManualClock); ok && kept.Now.After(clock.Now()) {
		clock.Advance(kept.Now.Sub(clock.Now()))
	}
	s.restored = &kept
	return nil
}

// addMissing adds what every account has, and this kept state has not: it was written by an older program.
func (st *state) addMissing(fresh *state) {
	st.zones = fresh.zones
	for n := range fresh.networks.all() {
		if _, known := st.networks.get(n.uuid); !known {
			st.networks.put(n.uuid, n)
		}
	}
	for r := range fresh.routers.all() {
		if _, known := st.routers.get(r.uuid); !known {
			st.routers.put(r.uuid, r)
		}
	}
	for t := range fresh.storages.all() {
		if _, known := st.storages.get(t.uuid); !known {
			st.storages.put(t.uuid, t)
		}
	}
	if st.addresses == nil {
		st.addresses = fresh.addresses
	}
	if st.interfaces == nil {
		st.interfaces = fresh.interfaces
	}
}

// markUnsaved has the state written soon.
func (s *Simulator) markUnsaved() {
	if s.keeper == nil {
		return
	}
	select {
	case s.keeper.unsaved <- struct{}{}:
	default:
	}
}

// leastPause is the time between two writings, at least; it grows with the time that a writing takes.
const leastPause = 20 * time.Millisecond

// keepState writes the state after changes, until the simulator is closed.
func (s *Simulator) keepState() {
	defer close(s.keeper.saved)
	pause := leastPause
	for {
		select {
		case <-s.keeper.unsaved:
		case <-s.ctx.Done():
			return
		}
		select {
		case <-time.After(pause):
		case <-s.ctx.Done():
			return
		}
		started := time.Now()
		s.reportPlane("keep state in", s.keeper.dir, s.saveState())
		pause = max(leastPause, 10*time.Since(started))
	}
}

// saveState writes the state as it is now. A file is there at every moment, the former or the new one.
func (s *Simulator) saveState() error {
	s.mu.Lock()
	kept := keptState{
		Format: stateFormat, Written: time.Now().UTC(), Now: s.clock.Now().UTC(),
		PublicNetwork: s.cfg.PublicNetwork.Masked().String(), Disks: s.cfg.Disks != nil, State: encodeGraph(&s.state),
	}
	s.mu.Unlock()
	text, err := json.Marshal(kept)
	if err != nil {
		return err
	}
	return writeWhole(filepath.Join(s.keeper.dir, stateFile), text)
}

// writeWhole puts a file in the place of the one that is there, at once, and so that a power failure leaves one of both.
func writeWhole(path string, text []byte) error {
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600) // it holds keys and passwords
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// closeState writes the state a last time. Nothing changes it any more.
func (s *Simulator) closeState() error {
	if s.keeper == nil {
		return nil
	}
	<-s.keeper.saved
	return errors.Join(s.saveState(), s.keeper.lock.Close())
}
