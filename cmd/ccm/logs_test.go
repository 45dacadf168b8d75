package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/cmd/internal/logs/logstest"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

const kubernetesToken = "eyJhbGciOiJSUzI1NiJ9.TOKEN-OF-THE-SERVICE-ACCOUNT.of-the-ccm"

// A log of the highest level is what people attach to bug reports. The ccm's is of a run with a Service whose certificate is in a Secret, and
// one whose Secret is wrong.
func TestLogsOfEveryLevelHoldNoSecrets(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{
		Username: "kubernetes", Password: "pass-word-0f-the-account", Token: "ucat_01HSECRET0TOKEN0OF0THE0ACCOUNT",
	})
	certificate, key := newPair(t)
	const notAKey = "this-is-no-key-but-secret-all-the-same-0123456789"
	api := httptest.NewServer(&kubernetesAPI{objects: map[string]string{
		"/api/v1/namespaces/default/secrets/www":   secretObject("www", certificate, key),
		"/api/v1/namespaces/default/secrets/wrong": secretObject("wrong", certificate, notAKey),
		"/api/v1/services": `{"kind":"ServiceList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[` +
			serviceObject("www") + "," + serviceObject("wrong") + "]}",
		"/healthz": "ok",
		"/version": `{"major":"1","minor":"34","gitVersion":"v1.34.0"}`,
		"/api/v1/nodes": `{"kind":"NodeList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[
			{"metadata":{"name":"n1"},"spec":{"providerID":"upcloud:////` + sim.CreateServer(t, "n1", zone) + `"},
			"status":{"conditions":[{"type":"Ready","status":"True"}]}}]}`,
		"/api/v1/namespaces/kube-system": `{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"kube-system","uid":"5e0b0000-0000-4000-8000-000000000001"}}`,
	}})
	t.Cleanup(api.Close)
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	kubeconfig := write("kubeconfig", fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","current-context":"c","clusters":[{"name":"c","cluster":{"server":%q}}],
		"users":[{"name":"u","user":{"token":%q}}],"contexts":[{"name":"c","context":{"cluster":"c","user":"u"}}]}`, api.URL, kubernetesToken))
	write("token", sim.Token)
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	process := exec.Command(os.Args[0], "--kubeconfig="+kubeconfig, "--credentials-dir="+dir, "--leader-elect=false", "--secure-port=0", "-v=10")
	process.Env = []string{runAsProgram + "=1", "PATH=" + os.Getenv("PATH"), "HOME=" + dir, "UPCLOUD_DEBUG_API_BASE_URL=" + sim.URL}
	process.Stdout, process.Stderr = log, log
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		ended <- process.Wait()
		close(ended)
	}()
	t.Cleanup(func() { // before the API server's, which waits for the watches to end
		_ = process.Process.Kill()
		t.Log("the ccm has ended:", <-ended)
	})
	await := func(parts ...string) string {
		t.Helper()
		for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
			text, err := os.ReadFile(log.Name())
			if err != nil {
				t.Fatal(err)
			}
			missing := ""
			for _, part := range parts {
				if !strings.Contains(string(text), part) {
					missing = part
				}
			}
			if missing == "" {
				return string(text)
			}
			select {
			case err := <-ended:
				t.Fatalf("the ccm has ended: %v\n%s", err, text)
			default:
			}
			if time.Now().After(deadline) {
				t.Fatalf("the log does not tell of %s:\n%.20000s", missing, text)
			}
		}
	}
	// It has read the Secrets, uploaded the good one, and served the Service of the other without it; and it is of the highest level.
	text := await("Made a certificate bundle", "/secrets/wrong", `object="default/wrong" fieldPath="" kind="Service" apiVersion="v1" type="Normal" reason="EnsuredLoadBalancer"`,
		"Response Body")
	if err := process.Process.Signal(os.Interrupt); err != nil {
		t.Error(err)
	}
	t.Log("the ccm has ended:", <-ended)
	logstest.NoSecrets(t, text, map[string]string{
		"token": sim.Token, "password": sim.Password,
		"token of Kubernetes": kubernetesToken, "certificate's key": logstest.KeyBody(key), "wrong key": notAKey,
		"certificate's key in base64": base64.StdEncoding.EncodeToString([]byte(key))[120:],
	})
}

func newPair(t *testing.T) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"www.example.com"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
}

func secretObject(name, certificate, key string) string {
	text, _ := json.Marshal(map[string]any{
		"kind": "Secret", "apiVersion": "v1", "type": "kubernetes.io/tls",
		"metadata": map[string]any{"name": name, "namespace": "default", "resourceVersion": "1"},
		"data":     map[string][]byte{"tls.crt": []byte(certificate), "tls.key": []byte(key)},
	})
	return string(text)
}

func serviceObject(name string) string {
	return fmt.Sprintf(`{"kind":"Service","apiVersion":"v1","metadata":{"name":%q,"namespace":"default","uid":"uid-%s","resourceVersion":"1","annotations":{
		"service.beta.kubernetes.io/upcloud-load-balancer-tls-secret":%q,"service.beta.kubernetes.io/upcloud-load-balancer-mode":"http"}},
		"spec":{"type":"LoadBalancer","ports":[{"name":"https","protocol":"TCP","port":443,"nodePort":30443}]}}`, name, name, name)
}

// kubernetesAPI answers what the ccm asks of Kubernetes. Objects do not change.
type kubernetesAPI struct{ objects map[string]string }

func (a *kubernetesAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.Copy(io.Discard, r.Body)
	path := strings.TrimSuffix(r.URL.Path, "/status")
	object, found := a.objects[path]
	if name, isService := strings.CutPrefix(path, "/api/v1/namespaces/default/services/"); isService {
		object, found = serviceObject(name), true
	}
	switch {
	case r.URL.Query().Has("sendInitialEvents"): // as API servers that cannot send lists as streams
		w.WriteHeader(http.StatusUnprocessableEntity)
		fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Invalid","code":422}`)
	case r.URL.Query().Get("watch") != "":
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	case strings.HasSuffix(path, "/events"):
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, `{"kind":"Event","apiVersion":"v1","metadata":{"name":"e","namespace":"default"}}`)
	case found:
		fmt.Fprint(w, object)
	default:
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}`)
	}
}
