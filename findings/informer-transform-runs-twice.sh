#!/bin/bash
# k8s.io/client-go 0.36.3: an informer that fills its store by watch-list (the default way since 0.35) runs the transform twice on
# one and the same object: once while it collects the initial events, once more when it hands the collection to its queue.
# A transform must therefore be idempotent. One that, say, moves a field elsewhere and clears it loses the value at the second run.
set -euo pipefail
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
cd "$work"

cat >go.mod <<'MOD'
module example.com/finding

go 1.26

require k8s.io/client-go v0.36.3
MOD
cat >main.go <<'GO'
package main

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

// server answers as an API server does that holds one Service: by list, or by a watch that begins with what there is.
type server struct{}

func service() *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "1", ResourceVersion: "1"}}
}

func (server) List(metav1.ListOptions) (runtime.Object, error) {
	return &corev1.ServiceList{ListMeta: metav1.ListMeta{ResourceVersion: "1"}, Items: []corev1.Service{*service()}}, nil
}

func (server) Watch(options metav1.ListOptions) (watch.Interface, error) {
	w := watch.NewRaceFreeFake()
	if options.SendInitialEvents != nil && *options.SendInitialEvents {
		w.Add(service())
		end := &corev1.Service{}
		end.ResourceVersion = "1"
		end.Annotations = map[string]string{metav1.InitialEventsAnnotationKey: "true"}
		w.Action(watch.Bookmark, end)
	}
	return w, nil
}

func main() {
	var mu sync.Mutex
	runs := map[any]int{} // by the object's address
	informer := cache.NewSharedIndexInformer(server{}, &corev1.Service{}, 0, cache.Indexers{})
	if err := informer.SetTransform(func(object any) (any, error) {
		mu.Lock()
		defer mu.Unlock()
		runs[object]++
		return object, nil
	}); err != nil {
		panic(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	go informer.RunWithContext(ctx)
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		panic("not synced")
	}
	mu.Lock()
	defer mu.Unlock()
	if len(runs) != 1 {
		fmt.Println("objects seen by the transform:", len(runs))
		os.Exit(1)
	}
	for _, n := range runs {
		fmt.Println("the transform ran on one object this many times:", n)
		if n != 2 {
			os.Exit(1)
		}
	}
}
GO
GOFLAGS=-mod=mod go run . || { echo "the behaviour has changed"; exit 1; }
echo "seen with k8s.io/client-go $(go list -m -f '{{.Version}}' k8s.io/client-go)"
