package driver_test

import (
	"fmt"
	"slices"
	"strings"
)

// compare holds the account against the model: nothing lost, nothing left over, everything where it should be, and the person's
// storages as they were left.
func (w *world) compare() {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list struct{ Storages struct{ Storage []resource } }
	w.sim.Do(w.t, "GET", "/storage/private", "", &list)
	var got, want []string
	for _, listed := range list.Storages.Storage {
		if !w.made[listed.UUID] {
			continue
		}
		var one struct{ Storage resource }
		w.sim.Do(w.t, "GET", "/storage/"+listed.UUID, "", &one)
		s := one.Storage
		labels := s.labels()
		switch {
		case s.Type == "backup":
			got = append(got, fmt.Sprintf("snapshot %s %s %d GiB", labels["csi-snapshot-name"], s.UUID, s.Size))
		default:
			got = append(got, fmt.Sprintf("volume %s %s %d GiB at %s", labels["csi-name"], s.UUID, s.Size,
				strings.Join(s.Servers.Server, ",")))
		}
	}
	for name, volume := range w.volumes {
		want = append(want, fmt.Sprintf("volume %s %s %d GiB at %s", name, volume.id, volume.size, volume.server))
	}
	for name, snapshot := range w.snapshots {
		want = append(want, fmt.Sprintf("snapshot %s %s %d GiB", name, snapshot.id, snapshot.size))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		w.t.Errorf("the account has\n%s\nand should have\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for id, left := range w.expected {
		if is := w.described(id); is != left {
			w.t.Errorf("the person left %s as %s, and it is %s", id, left, is)
		}
	}
}

// clear deletes everything that there is of the driver's.
func (w *world) clear() {
	w.calm.Store(true)
	for len(w.volumes)+len(w.snapshots) > 0 && !w.t.Failed() {
		for _, kind := range []func() func(){w.unpublishAnywhere, w.deleteVolume, w.deleteSnapshot} {
			w.mu.Lock()
			step := kind()
			w.mu.Unlock()
			if step != nil {
				step()
			}
		}
	}
}

func (w *world) unpublishAnywhere() func() {
	name, volume := pick(w, w.volumes)
	if name == "" {
		return nil
	}
	return w.on(func() {
		defer w.ask(volume.id, "")
		w.withdraw(name, volume, "")
	}, name)
}
