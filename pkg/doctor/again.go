package doctor

import (
	"context"
)

// again reads the account's clock, the cluster's objects and one storage again, and judges it.
func (v *view) again(ctx context.Context, f *Finding, reviewed bool) (*Finding, error) {
	fresh := *v
	var err error
	if fresh.now, err = v.config.Cloud.AccountTime(ctx); err != nil {
		return nil, err
	}
	if fresh.favorites, err = v.config.Cloud.Favorites(ctx); err != nil {
		return nil, err
	}
	if fresh.objects, err = v.readObjects(ctx); err != nil {
		return nil, err
	}
	uid, err := v.clusterUID(ctx)
	if err != nil {
		return nil, err
	}
	now, err := v.storageAgain(ctx, v.storages[f.subject.id()])
	if now == nil || err != nil || uid != v.uid {
		return nil, err
	}
	if fresh.objects.knows(now) {
		return fresh.wantedAgain(now), nil
	}
	return fresh.judge(now, reviewed), nil
}
