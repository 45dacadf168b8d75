package doctor

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// The cluster's record is the ConfigMap upcloud-doctor in kube-system: what this cluster's objects were seen to stand for. It is in
// etcd, and not in the account, so that it is set back and copied together with the objects: a cluster that was restored does not
// remember what was made after the backup, and what a cluster does not remember it never removes.
const (
	RecordName      = "upcloud-doctor"
	RecordNamespace = metav1.NamespaceSystem
)

// memory is what the record says of one thing.
type memory struct {
	wish wish
	look string // the last look that marked it
}

// wish is what the object that stood for a thing said of its end, when it was last seen.
type wish string

const (
	wishUnknown wish = "-" // no object was seen
	wishStay    wish = "stay"
	wishRetain  wish = "retain"
	wishDelete  wish = "delete" // it was being deleted, and the thing was to go with it
)

// record is one part of the ConfigMap.
type record struct {
	client kubernetes.Interface
	part   string // key in the ConfigMap
	stored *corev1.ConfigMap
	things map[string]memory // by ID
}

// readRecord reads a part of the record. No ConfigMap is an empty record.
func readRecord(ctx context.Context, client kubernetes.Interface, part string) (*record, error) {
	r := &record{client: client, part: part, things: map[string]memory{}}
	stored, err := client.CoreV1().ConfigMaps(RecordNamespace).Get(ctx, RecordName, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return r, nil
	case err != nil:
		return nil, unreadable("configmap "+RecordNamespace+"/"+RecordName, err)
	}
	r.stored = stored
	for line := range strings.Lines(stored.Data[part]) {
		// A line that is not understood says nothing: its thing is not remembered, and stays.
		if fields := strings.Fields(line); len(fields) == 3 {
			r.things[fields[0]] = memory{wish(fields[1]), strings.Trim(fields[2], "-")}
		}
	}
	return r, nil
}

// clone is a record that can be changed apart.
func (r *record) clone() *record {
	own := *r
	own.things = maps.Clone(r.things)
	return &own
}

// see notes the wish of an object that stands for a thing.
func (r *record) see(id string, wanted wish) {
	if seen := r.things[id]; seen.wish != wanted {
		r.things[id] = memory{wanted, seen.look}
	}
}

// looked notes which look marks a thing.
func (r *record) looked(id, look string) {
	r.things[id] = memory{cmp.Or(r.things[id].wish, wishUnknown), look}
}

// forgetBut drops the things that are not there any more.
func (r *record) forgetBut(there func(id string) bool) {
	maps.DeleteFunc(r.things, func(id string, _ memory) bool { return !there(id) })
}

func (r *record) text() string {
	var text strings.Builder
	for _, id := range slices.Sorted(maps.Keys(r.things)) {
		seen := r.things[id]
		fmt.Fprintf(&text, "%s %s %s\n", id, seen.wish, cmp.Or(seen.look, "-"))
	}
	return text.String()
}

// save writes what has changed. Another doctor that wrote meanwhile is an error: what this one decided may not hold any more.
func (r *record) save(ctx context.Context) error {
	text := r.text()
	if r.stored != nil && r.stored.Data[r.part] == text || r.stored == nil && text == "" {
		return nil
	}
	configMaps := r.client.CoreV1().ConfigMaps(RecordNamespace)
	var err error
	if r.stored == nil {
		r.stored, err = configMaps.Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: RecordNamespace, Name: RecordName}, Data: map[string]string{r.part: text},
		}, metav1.CreateOptions{})
	} else {
		changed := r.stored.DeepCopy()
		if changed.Data == nil {
			changed.Data = map[string]string{}
		}
		changed.Data[r.part] = text
		r.stored, err = configMaps.Update(ctx, changed, metav1.UpdateOptions{})
	}
	switch {
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err):
		return fmt.Errorf("write configmap %s/%s: another upcloud-doctor wrote it meanwhile; run this one again: %w", RecordNamespace, RecordName, err)
	case err != nil:
		return fmt.Errorf("write configmap %s/%s: %w; --fix needs the right to create and update it, see deploy/kubernetes/doctor",
			RecordNamespace, RecordName, err)
	}
	return nil
}

// newLook names one run of the doctor.
func newLook() string {
	var random [4]byte
	_, _ = rand.Read(random[:]) // never fails
	return hex.EncodeToString(random[:])
}
