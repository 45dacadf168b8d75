package doctor

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// subject is a thing of the account that can be labelled and removed, as it was read last.
type subject interface {
	id() string
	title() string
	labels() map[string]string
	// write gives it labels in place of those that it has, and a title where it has one.
	write(ctx context.Context, labels map[string]string, title string) error
	remove(ctx context.Context) error
}

// storageSubject is a disk or a backup.
type storageSubject struct {
	account *cloud.Cloud
	storage *cloud.Storage
}

func (s *storageSubject) id() string                { return s.storage.ID }
func (s *storageSubject) title() string             { return s.storage.Title }
func (s *storageSubject) labels() map[string]string { return s.storage.Labels }

func (s *storageSubject) write(ctx context.Context, labels map[string]string, title string) error {
	return s.account.RelabelStorage(ctx, s.storage.ID, title, labels)
}

func (s *storageSubject) remove(ctx context.Context) error {
	return s.account.RemoveStorage(ctx, s.storage)
}

// fingerprint is the same as long as title and labels are: what a person reviewed is what is acted upon.
func fingerprint(s subject) string {
	sum := sha256.New()
	fmt.Fprintf(sum, "%q %q", s.id(), s.title())
	labels := s.labels()
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		fmt.Fprintf(sum, " %q=%q", key, labels[key])
	}
	return hex.EncodeToString(sum.Sum(nil)[:8])
}
