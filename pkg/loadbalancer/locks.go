package loadbalancer

import (
	"context"
	"fmt"
	"sync"
)

// keyedLocks gives each key a lock of its own, so that a slow load balancer holds up nothing but itself.
type keyedLocks struct {
	mu    sync.Mutex
	locks map[string]*keyedLock
}

type keyedLock struct {
	held  chan struct{} // has one element while the lock is held
	users int           // who holds it or waits for it
}

// lock waits for the key's lock, or for the end of ctx.
func (k *keyedLocks) lock(ctx context.Context, key string) (unlock func(), err error) {
	k.mu.Lock()
	if k.locks == nil {
		k.locks = map[string]*keyedLock{}
	}
	lock, ok := k.locks[key]
	if !ok {
		lock = &keyedLock{held: make(chan struct{}, 1)}
		k.locks[key] = lock
	}
	lock.users++
	k.mu.Unlock()

	select {
	case lock.held <- struct{}{}:
		return func() {
			<-lock.held
			k.leave(key, lock)
		}, nil
	case <-ctx.Done():
		k.leave(key, lock)
		return nil, fmt.Errorf("waiting for another change of this load balancer: %w", context.Cause(ctx))
	}
}

func (k *keyedLocks) leave(key string, lock *keyedLock) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if lock.users--; lock.users == 0 {
		delete(k.locks, key)
	}
}

// awaited says whether anyone waits for the key's lock, which the caller holds.
func (k *keyedLocks) awaited(key string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	lock, ok := k.locks[key]
	return ok && lock.users > 1
}
