package doctor

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// ContentsResource is the kind VolumeSnapshotContent, which comes with the snapshot controller's CRDs.
var ContentsResource = schema.GroupVersionResource{
	Group: "snapshot.storage.k8s.io", Version: "v1", Resource: "volumesnapshotcontents",
}

// objects are the Kubernetes objects that know storages.
type objects struct {
	volumes             []*volume
	volumeNamed         map[string]*volume
	contents            []*content
	hasContents         bool // whether there is such a kind
	claims              []*claim
	byVolume, byContent map[string]bool // storages that a PersistentVolume or a content stands for
	// wishes are what the PersistentVolumes say of the end of each storage.
	wishes map[string]wish
	// references maps each storage that an object of any driver names, for whatever reason, to that object.
	references map[string]string
}

// volume is a PersistentVolume of a CSI driver.
type volume struct {
	name, driver, handle string
	leaving              bool // it is being deleted, or released to be so
	provisioned          bool // by the driver, and not written by hand
	wish                 wish
}

// content is a VolumeSnapshotContent.
type content struct {
	name, driver, handle, source string
	snapshotUID                  string // of its VolumeSnapshot
	leaving                      bool
}

// claim is a PersistentVolumeClaim.
type claim struct{ uid, namespace, name, volume string }

// uuids finds storages in handles: those of other drivers may hold more than a UUID.
var uuids = regexp.MustCompile(`[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}`)

func storagesIn(handle string) []string { return uuids.FindAllString(strings.ToLower(handle), -1) }

func (o *objects) refer(handle, object string) {
	for _, id := range storagesIn(handle) {
		o.references[id] = object
	}
}

// readObjects reads PersistentVolumes, claims and VolumeSnapshotContents.
func (d *Doctor) readObjects(ctx context.Context) (*objects, error) {
	o := &objects{
		volumeNamed: map[string]*volume{}, references: map[string]string{},
		byVolume: map[string]bool{}, byContent: map[string]bool{}, wishes: map[string]wish{},
	}
	volumes, err := d.config.Kubernetes.CoreV1().PersistentVolumes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, unreadable("persistentvolumes", err)
	}
	if err := whole("persistentvolumes", volumes); err != nil {
		return nil, err
	}
	for i := range volumes.Items {
		o.addVolume(&volumes.Items[i], d.config.Driver)
	}
	claims, err := d.config.Kubernetes.CoreV1().PersistentVolumeClaims(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, unreadable("persistentvolumeclaims", err)
	}
	if err := whole("persistentvolumeclaims", claims); err != nil {
		return nil, err
	}
	for i := range claims.Items {
		c := &claims.Items[i]
		o.claims = append(o.claims, &claim{uid: string(c.UID), namespace: c.Namespace, name: c.Name, volume: c.Spec.VolumeName})
	}
	contents, err := d.config.Dynamic.Resource(ContentsResource).List(ctx, metav1.ListOptions{})
	switch {
	case apierrors.IsNotFound(err), meta.IsNoMatchError(err):
		return o, nil
	case err != nil:
		return nil, unreadable("volumesnapshotcontents", err)
	}
	if err := whole("volumesnapshotcontents", contents); err != nil {
		return nil, err
	}
	o.hasContents = true
	for i := range contents.Items {
		o.addContent(&contents.Items[i])
	}
	return o, nil
}

// whole refuses a list that was cut short: what is not in it would look left behind.
func whole(resource string, list metav1.ListInterface) error {
	if list.GetContinue() != "" || list.GetRemainingItemCount() != nil && *list.GetRemainingItemCount() > 0 {
		return fmt.Errorf("list %s: the answer has only a part of the list; look at what stands between here and the API server", resource)
	}
	return nil
}

func unreadable(resource string, err error) error {
	var status apierrors.APIStatus
	if apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) {
		return fmt.Errorf("list %s: %w; use a kubeconfig that may get and list them", resource, err)
	}
	if errors.As(err, &status) {
		return fmt.Errorf("list %s: %w", resource, err)
	}
	return fmt.Errorf("list %s: %w; check --kubeconfig and that its API server can be reached", resource, err)
}

func (o *objects) addVolume(pv *corev1.PersistentVolume, driver string) {
	csi := pv.Spec.CSI
	if csi == nil {
		return
	}
	v := &volume{
		name: pv.Name, driver: csi.Driver, handle: canonical(csi.VolumeHandle),
		provisioned: pv.Annotations[annotationProvisionedBy] == csi.Driver, wish: wishOf(pv),
	}
	v.leaving = pv.DeletionTimestamp != nil || v.wish == wishDelete
	o.volumes = append(o.volumes, v)
	o.volumeNamed[v.name] = v
	for _, id := range storagesIn(csi.VolumeHandle) {
		o.byVolume[id] = true
		if v.wish != wishDelete || v.driver == driver { // what another driver is to delete is not for this one to end
			o.wishes[id] = stronger(o.wishes[id], v.wish)
		}
	}
	o.refer(csi.VolumeHandle, "PersistentVolume "+v.name)
}

// annotationProvisionedBy is written by external-provisioner.
const annotationProvisionedBy = "pv.kubernetes.io/provisioned-by"

// wishOf is what a PersistentVolume says of its storage's end. One that is deleted while its claim is there is an accident.
func wishOf(pv *corev1.PersistentVolume) wish {
	claimGone := pv.Status.Phase == corev1.VolumeReleased || pv.Status.Phase == corev1.VolumeFailed
	switch {
	case pv.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete:
		return wishRetain
	case claimGone:
		return wishDelete
	}
	return wishStay
}

// stronger is the wish that counts where several objects stand for one thing: that it stays.
func stronger(a, b wish) wish {
	for _, wanted := range []wish{wishRetain, wishStay} {
		if a == wanted || b == wanted {
			return wanted
		}
	}
	return wishDelete
}

func (o *objects) addContent(item *unstructured.Unstructured) {
	text := func(path ...string) string {
		found, _, _ := unstructured.NestedString(item.Object, path...)
		return found
	}
	c := &content{
		name: item.GetName(), driver: text("spec", "driver"), source: canonical(text("spec", "source", "volumeHandle")),
		handle: text("status", "snapshotHandle"), snapshotUID: text("spec", "volumeSnapshotRef", "uid"),
		leaving: item.GetDeletionTimestamp() != nil,
	}
	asked := text("spec", "source", "snapshotHandle")
	if c.handle == "" {
		c.handle = asked
	}
	c.handle = canonical(c.handle)
	o.contents = append(o.contents, c)
	for _, id := range append(storagesIn(c.handle), storagesIn(asked)...) {
		o.byContent[id] = true
	}
	for _, handle := range []string{c.source, asked, c.handle} {
		o.refer(handle, "VolumeSnapshotContent "+c.name)
	}
}

// namedBy says which object names a storage, for whatever reason; empty for none.
func (o *objects) namedBy(id string) string {
	if object := o.references[id]; object != "" {
		return object + " names it"
	}
	return ""
}

func canonical(handle string) string {
	if id := strings.ToLower(handle); uuids.FindString(id) == id {
		return id
	}
	return handle
}

// knows reports whether an object, of any driver, stands for the storage.
func (o *objects) knows(s *cloud.Storage) bool {
	if s.Role == cloud.RoleSnapshot {
		return o.byContent[s.ID]
	}
	return o.byVolume[s.ID]
}

// waiting says who may be waiting for a storage that no object knows yet: a claim that has no volume, or a content that
// has no snapshot.
func (o *objects) waiting(s *cloud.Storage) string {
	if s.Role == cloud.RoleSnapshot {
		for _, c := range o.contents {
			mine := namedAfter(s.Name, c.snapshotUID) || s.Labels["csi-snapshot-content"] == c.name
			if c.handle == "" && mine {
				return "VolumeSnapshotContent " + c.name + " waits for it"
			}
		}
		return ""
	}
	for _, c := range o.claims {
		if c.volume == "" && c.asks(s) {
			return "claim " + c.namespace + "/" + c.name + " waits for it"
		}
	}
	return ""
}

// asks reports whether a storage may have been made for the claim.
func (c *claim) asks(s *cloud.Storage) bool {
	name := plainTitle(s.Name)
	labelled := s.Labels["csi-pvc-name"] == c.name && s.Labels["csi-pvc-namespace"] == c.namespace
	// The beginning of a name may be cut off in the title of a copy.
	cut := s.Role == cloud.RoleCopy && name != "" && (strings.HasSuffix(c.uid, name) || strings.HasSuffix(withoutDashes(c.uid), name))
	return labelled || cut || namedAfter(name, c.uid)
}

// namedAfter reports whether a name was made of a UID: it ends in the UID, or, where external-provisioner or external-snapshotter has
// a name length set (--volume-name-uuid-length, --snapshot-name-uuid-length), in the beginning of the UID without dashes.
func namedAfter(name, uid string) bool {
	if uid == "" {
		return false
	}
	tail := name[strings.LastIndex(name, "-")+1:]
	return strings.HasSuffix(name, uid) || tail != "" && strings.HasPrefix(withoutDashes(uid), tail)
}

func withoutDashes(uid string) string { return strings.ReplaceAll(uid, "-", "") }

// origin says whose a storage was, as far as its labels say.
func (o *objects) origin(s *cloud.Storage) string {
	if namespace, name := s.Labels["csi-pvc-namespace"], s.Labels["csi-pvc-name"]; name != "" {
		return "of claim " + namespace + "/" + name
	}
	if namespace, name := s.Labels["csi-snapshot-namespace"], s.Labels["csi-snapshot-object"]; name != "" {
		return "of snapshot " + namespace + "/" + name
	}
	return ""
}

// lostVolume names a claim whose storage this is, and whose PersistentVolume is gone.
func (o *objects) lostVolume(s *cloud.Storage) string {
	for _, c := range o.claims {
		if c.volume != "" && o.volumeNamed[c.volume] == nil && (c.asks(s) || c.volume == s.Name) {
			return "claim " + c.namespace + "/" + c.name
		}
	}
	return ""
}
