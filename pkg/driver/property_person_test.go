package driver_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// The person makes disks and backups with titles and labels like those of the driver's, attaches and detaches them, and does so
// with the driver's volumes, too.

// mostTheirs is how many storages of the person there are at one time.
const mostTheirs = 6

// personActs changes something by hand, if it can be changed.
func (w *world) personActs() {
	if w.calm.Load() {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	acts := []func(){
		w.personMakesDisk, w.personBacksUp, w.personPlugsTheirs, w.personPlugsTheirs, w.personDeletesTheirs, w.personDetaches,
		w.personDetaches, w.personAttaches, w.personRenames, w.personRelabels,
	}
	acts[w.rand.IntN(len(acts))]()
}

// byHand makes a request of the person's, and reports whether it was taken. The lock is held.
func (w *world) byHand(method, path, body string, args ...any) (id string, taken bool) {
	body = fmt.Sprintf(body, args...)
	status, text := w.sim.Raw(w.t, method, path, body)
	w.note("  person: %s %s %s: %d", method, path, body, status)
	var made struct{ Storage storage }
	_ = json.Unmarshal(text, &made) // what is made of it tells
	return made.Storage.UUID, status < 300
}

func (w *world) personMakesDisk() {
	if len(w.theirs) == mostTheirs {
		return
	}
	title := w.aVolumeName()
	label := fmt.Sprintf(`{"key":"csi-name","value":%q},{"key":"csi-cluster","value":"another"}`, title)
	switch w.rand.IntN(3) {
	case 0:
		title += " (unfinished copy of 01000000-0000-4000-8000-000000000000 for test)"
	case 1:
		label = fmt.Sprintf(`{"key":"csi-name","value":%q}`, title)
	}
	id, _ := w.byHand("POST", "/storage", `{"storage":{"size":"1","title":%q,"zone":"fi-hel1","tier":"maxiops","labels":[%s]}}`,
		title, label)
	w.theirs = append(w.theirs, id)
	w.lookAt(id)
}

// personBacksUp gives a backup the title that a snapshot may have.
func (w *world) personBacksUp() {
	_, volume := pick(w, w.volumes)
	if volume == nil || len(w.theirs) == mostTheirs {
		return
	}
	id, taken := w.byHand("POST", "/storage/"+volume.id+"/backup", `{"storage":{"title":%q}}`, titleByHand(1+2*w.rand.IntN(mostNames/2)))
	if taken {
		w.theirs = append(w.theirs, id)
		w.lookAt(id)
	}
}

// lookAt remembers how a storage of the person's is.
func (w *world) lookAt(id string) { w.expected[id] = w.described(id) }

func (w *world) described(id string) string {
	status, text := w.sim.Raw(w.t, "GET", "/storage/"+id, "")
	if status >= 300 {
		return "gone"
	}
	var one struct{ Storage resource }
	if err := json.Unmarshal(text, &one); err != nil {
		return err.Error()
	}
	s := one.Storage
	return fmt.Sprintf("%s %s %d GiB at %v %s %v", s.Type, s.Title, s.Size, s.Servers.Server, s.State, s.Labels)
}

func (w *world) oneOfTheirs() string {
	if len(w.theirs) == 0 {
		return ""
	}
	return w.theirs[w.rand.IntN(len(w.theirs))]
}

// personPlugsTheirs attaches one of the person's disks, which gets the lowest address that is free, or detaches it.
func (w *world) personPlugsTheirs() {
	id := w.oneOfTheirs()
	if id == "" {
		return
	}
	var one struct{ Storage resource }
	w.sim.Do(w.t, "GET", "/storage/"+id, "", &one)
	if at := one.Storage.Servers.Server; len(at) > 0 && w.rand.IntN(3) == 0 {
		w.byHand("POST", "/server/"+at[0]+"/storage/detach", `{"storage_device":{"storage":%q}}`, id)
	} else if len(at) == 0 {
		w.plug(id)
	}
	w.lookAt(id)
}

func (w *world) plug(id string) (server string, taken bool) {
	server = w.servers[w.rand.IntN(len(w.servers))]
	_, taken = w.byHand("POST", "/server/"+server+"/storage/attach",
		`{"storage_device":{"type":"disk","address":"virtio","storage":%q}}`, id)
	return server, taken
}

func (w *world) personDeletesTheirs() {
	id := w.oneOfTheirs()
	if id == "" || w.rand.IntN(2) == 0 {
		return
	}
	if _, taken := w.byHand("DELETE", "/storage/"+id, ""); taken {
		w.theirs = slices.DeleteFunc(w.theirs, func(other string) bool { return other == id })
		delete(w.expected, id)
	}
}

// oneOfTheDrivers is a volume of the driver's that the person may change now.
func (w *world) oneOfTheDrivers() *modelVolume {
	all := make([]*modelVolume, 0, len(w.volumes))
	for i := range mostNames {
		if volume := w.volumes[volumeName(i)]; volume != nil && !w.held[volume.id] && w.asked[volume.id] != "delete" {
			all = append(all, volume)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return all[w.rand.IntN(len(all))]
}

// personDetaches takes a volume of the driver's away, and often attaches another disk to the address that is free then.
func (w *world) personDetaches() {
	volume := w.oneOfTheDrivers()
	if volume == nil {
		return
	}
	var one struct{ Storage resource }
	w.sim.Do(w.t, "GET", "/storage/"+volume.id, "", &one)
	if len(one.Storage.Servers.Server) == 0 {
		return
	}
	server := one.Storage.Servers.Server[0]
	if _, taken := w.byHand("POST", "/server/"+server+"/storage/detach", `{"storage_device":{"storage":%q}}`, volume.id); !taken {
		return
	}
	volume.server, w.touched[volume.id] = "", true
	for _, id := range w.theirs {
		if strings.Contains(w.expected[id], "normal") && strings.Contains(w.expected[id], "at []") && w.rand.IntN(2) == 0 {
			w.byHand("POST", "/server/"+server+"/storage/attach",
				`{"storage_device":{"type":"disk","address":"virtio","storage":%q}}`, id)
			w.lookAt(id)
			return
		}
	}
}

// personAttaches attaches a volume of the driver's.
func (w *world) personAttaches() {
	volume := w.oneOfTheDrivers()
	if volume == nil {
		return
	}
	if server, taken := w.plug(volume.id); taken {
		volume.server, w.touched[volume.id] = server, true
	}
}

// personRenames gives a volume of the driver's another title.
func (w *world) personRenames() {
	if volume := w.oneOfTheDrivers(); volume != nil {
		w.byHand("PUT", "/storage/"+volume.id, `{"storage":{"title":%q}}`, w.aVolumeName())
	}
}

// personRelabels changes the labels of a storage of the person's.
func (w *world) personRelabels() {
	if id := w.oneOfTheirs(); id != "" {
		w.byHand("PUT", "/storage/"+id, `{"storage":{"labels":[{"key":"csi-source","value":%q},{"key":"csi-cluster","value":"another"}]}}`, id)
		w.lookAt(id)
	}
}
