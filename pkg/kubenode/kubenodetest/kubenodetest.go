// Package kubenodetest serves Nodes and CSINodes over HTTP as an API server does, for tests: what holds them, and applies
// patches, is client-go's own object tracker.
package kubenodetest

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/kubenode"
)

// Server is an API server with Nodes and CSINodes.
type Server struct {
	Objects kubernetes.Interface
	web     *httptest.Server

	mu       sync.Mutex
	refuse   int
	before   func(r *http.Request)
	requests map[string]int
}

// Start serves until the test ends.
func Start(t *testing.T) *Server {
	t.Helper()
	s := &Server{Objects: fake.NewClientset(), requests: make(map[string]int)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/nodes/{name}", func(w http.ResponseWriter, r *http.Request) {
		object, err := s.Objects.CoreV1().Nodes().Get(r.Context(), r.PathValue("name"), metav1.GetOptions{})
		answer(w, object, err)
	})
	mux.HandleFunc("PATCH /api/v1/nodes/{name}", func(w http.ResponseWriter, r *http.Request) {
		patch, err := io.ReadAll(r.Body)
		if err != nil {
			answer(w, nil, err)
			return
		}
		kind := types.PatchType(r.Header.Get("Content-Type"))
		object, err := s.Objects.CoreV1().Nodes().Patch(r.Context(), r.PathValue("name"), kind, patch, metav1.PatchOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			err = apierrors.NewGenericServerResponse(http.StatusUnprocessableEntity, "patch", corev1.Resource("nodes"),
				r.PathValue("name"), err.Error(), 0, false)
		}
		answer(w, object, err)
	})
	mux.HandleFunc("GET /apis/storage.k8s.io/v1/csinodes/{name}", func(w http.ResponseWriter, r *http.Request) {
		object, err := s.Objects.StorageV1().CSINodes().Get(r.Context(), r.PathValue("name"), metav1.GetOptions{})
		answer(w, object, err)
	})
	s.web = httptest.NewServer(s.watched(mux))
	t.Cleanup(s.web.Close)
	return s
}

func (s *Server) watched(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.requests[r.Method]++
		refuse, before := s.refuse, s.before
		s.mu.Unlock()
		if before != nil {
			before(r)
		}
		if refuse != 0 {
			answer(w, nil, apierrors.NewGenericServerResponse(refuse, r.Method, corev1.Resource("nodes"), "", "refused", 0, false))
			return
		}
		next.ServeHTTP(w, r)
	})
}

func answer(w http.ResponseWriter, object any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		status := apierrors.NewInternalError(err)
		errors.As(err, &status)
		w.WriteHeader(int(status.ErrStatus.Code))
		object = status.ErrStatus
	}
	_ = json.NewEncoder(w).Encode(object)
}

// Refuse answers all requests with that HTTP status; 0 ends it.
func (s *Server) Refuse(status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = status
}

// Before calls do before each request is answered.
func (s *Server) Before(do func(*http.Request)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = do
}

// Requests tells how many requests of that method came.
func (s *Server) Requests(method string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests[method]
}

// Config is how to reach the server.
func (s *Server) Config() *rest.Config { return &rest.Config{Host: s.web.URL} }

// Client makes a client for the Node of that name.
func (s *Server) Client(t *testing.T, name string) *kubenode.Client {
	t.Helper()
	client, err := kubenode.New(s.Config(), name)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// CreateNode makes a Node with taints, and volumes attached.
func (s *Server) CreateNode(t *testing.T, name string, taints []corev1.Taint, volumes ...string) *corev1.Node {
	t.Helper()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name + "-uid")}, Spec: corev1.NodeSpec{Taints: taints}}
	for _, volume := range volumes {
		node.Status.VolumesAttached = append(node.Status.VolumesAttached, corev1.AttachedVolume{Name: corev1.UniqueVolumeName(volume)})
	}
	node, err := s.Objects.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return node
}

// Register makes the CSINode that a kubelet makes of the driver's registration.
func (s *Server) Register(t *testing.T, node *corev1.Node, driver, nodeID string, count *int32) {
	t.Helper()
	entry := storagev1.CSINodeDriver{Name: driver, NodeID: nodeID}
	if count != nil {
		entry.Allocatable = &storagev1.VolumeNodeResources{Count: count}
	}
	csiNode := &storagev1.CSINode{
		ObjectMeta: metav1.ObjectMeta{Name: node.Name, OwnerReferences: []metav1.OwnerReference{{
			APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID,
		}}},
		Spec: storagev1.CSINodeSpec{Drivers: []storagev1.CSINodeDriver{entry}},
	}
	_, err := s.Objects.StorageV1().CSINodes().Create(t.Context(), csiNode, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		_, err = s.Objects.StorageV1().CSINodes().Update(t.Context(), csiNode, metav1.UpdateOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
}
