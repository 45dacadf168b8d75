package doctor

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// judgeVolumes finds PersistentVolumes of the driver whose storage is gone.
func (e *examination) judgeVolumes(ctx context.Context) error {
	for _, v := range e.objects.volumes {
		if v.driver != e.config.Driver || v.leaving || e.storages[v.handle] != nil {
			continue
		}
		_, err := e.config.Cloud.StorageNow(ctx, v.handle)
		if err == nil {
			continue
		}
		if !isGone(err) {
			return err
		}
		_, err = e.config.Kubernetes.CoreV1().PersistentVolumes().Get(ctx, v.name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return unreadable("persistentvolumes", err)
		}
		e.report.Findings = append(e.report.Findings, &Finding{
			Kind: LostVolume, StorageID: v.handle, Object: "PersistentVolume/" + v.name,
		})
	}
	return nil
}

// judgeContents finds VolumeSnapshotContents of the driver whose backup is gone.
func (e *examination) judgeContents(ctx context.Context) error {
	e.report.WithoutSnapshots = !e.objects.hasContents
	for _, c := range e.objects.contents {
		if c.driver != e.config.Driver || c.leaving || c.handle == "" || e.storages[c.handle] != nil {
			continue
		}
		_, err := e.config.Cloud.StorageNow(ctx, c.handle)
		if err == nil {
			continue
		}
		if !isGone(err) {
			return err
		}
		_, err = e.config.Dynamic.Resource(ContentsResource).Get(ctx, c.name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return unreadable("volumesnapshotcontents", err)
		}
		e.report.Findings = append(e.report.Findings, &Finding{
			Kind: LostSnapshot, StorageID: c.handle, Object: "VolumeSnapshotContent/" + c.name,
		})
	}
	return nil
}
