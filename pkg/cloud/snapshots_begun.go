package cloud

import "sync"

// snapshotting is what this process knows of backups, to spare questions. Nothing is returned on its word alone.
type snapshotting struct {
	flights *flights[*Snapshot]

	mu     sync.Mutex
	begun  map[string]begunBackup // by name
	titles map[string]string      // ID -> title of backups that were looked at, empty where they have a name already
}

// begunBackup is a backup that has no labels yet.
type begunBackup struct {
	id        string
	inherited map[string]string // see SnapshotSpec.Inherit
}

func newSnapshotting(c *Cloud) *snapshotting {
	return &snapshotting{
		flights: newFlights[*Snapshot](c.life, &c.work), begun: map[string]begunBackup{}, titles: map[string]string{},
	}
}

func (s *snapshotting) begin(name string, backup begunBackup) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begun[name] = backup
}

func (s *snapshotting) forget(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.begun, name)
}

// of is the backup that was begun under the name, its ID empty if there is none.
func (s *snapshotting) of(name string) begunBackup {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.begun[name]
}

// mostTitles bounds what is remembered.
const mostTitles = 100_000

func (s *snapshotting) saw(id, title string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.titles) >= mostTitles {
		clear(s.titles)
	}
	s.titles[id] = title
}

// candidates leaves out the backups known to have another title. Those that we make have theirs from the start.
func (s *snapshotting) candidates(ids []string, title string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []string
	for _, id := range ids {
		if seen, known := s.titles[id]; !known || seen == title {
			found = append(found, id)
		}
	}
	return found
}
