package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/kubenode"
)

// Times of reading the cluster's UID. At the start of a cluster kube-proxy may not have programmed the Service of the API server, or
// the driver's rights may not be in force: the driver waits for its answer before it serves, as the sidecars ask for the first volumes
// as soon as they reach both.
const (
	clusterUIDTimeout    = 5 * time.Second
	clusterUIDRetry      = 500 * time.Millisecond
	clusterUIDPatience   = 20 * time.Second
	clusterUIDRetryLater = 10 * time.Second
)

// startClusterUID gives the account the cluster's UID: the one of the flag, or in a Pod the one that the API server has. Volumes can be
// made without it, so that an API server that does not answer stops nothing: it is asked again until stop is called.
func startClusterUID(ctx context.Context, flag string, account *cloud.Cloud) (stop func(), err error) {
	if flag != "" {
		if err := account.SetClusterUID(flag); err != nil {
			return nil, fmt.Errorf("--cluster-uid: %w", err)
		}
		return func() {}, nil
	}
	config, err := rest.InClusterConfig()
	if errors.Is(err, rest.ErrNotInCluster) {
		return func() {}, nil
	}
	if err != nil {
		klog.FromContext(ctx).Info("Cannot ask for the cluster's UID; storages do not get the label "+cloud.LabelClusterUID, "err", err)
		return func() {}, nil
	}
	err = awaitClusterUID(ctx, config, account)
	if err == nil {
		return func() {}, nil
	}
	klog.FromContext(ctx).Info("Cannot read the cluster's UID; storages do not get the label "+cloud.LabelClusterUID+" yet",
		"err", err, "retryAfter", clusterUIDRetryLater)
	ctx, cancel := context.WithCancel(ctx)
	var asking sync.WaitGroup
	asking.Go(func() {
		_ = wait.PollUntilContextCancel(ctx, clusterUIDRetryLater, false, func(ctx context.Context) (bool, error) {
			return askClusterUID(ctx, config, account) == nil, nil
		}) // its only error is that it was stopped
	})
	return func() {
		cancel()
		asking.Wait()
	}, nil
}

// awaitClusterUID asks until there is an answer, for a while. The error is the last one.
func awaitClusterUID(ctx context.Context, config *rest.Config, account *cloud.Cloud) error {
	var last error
	_ = wait.PollUntilContextTimeout(ctx, clusterUIDRetry, clusterUIDPatience, true, func(ctx context.Context) (bool, error) {
		if err := askClusterUID(ctx, config, account); err == nil || last == nil || ctx.Err() == nil {
			last = err
		}
		return last == nil, nil
	}) // its only error is that its time ended
	return last
}

// askClusterUID asks once.
func askClusterUID(ctx context.Context, config *rest.Config, account *cloud.Cloud) error {
	bounded, cancel := context.WithTimeout(ctx, clusterUIDTimeout)
	defer cancel()
	uid, err := kubenode.ClusterUID(bounded, config)
	if err != nil {
		return err
	}
	return account.SetClusterUID(uid)
}
