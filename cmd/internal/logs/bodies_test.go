package logs

import (
	"bytes"
	"encoding/json"
	"flag"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
)

const (
	secretKey = "c2VjcmV0LWtleQ=="
	token     = "scraper" // short, as bodies are logged sixteen bytes a line
	bearer    = "token-of-the-program"
)

func TestNoLevelLogsSecretsOfTheKubernetesAPI(t *testing.T) {
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.Method == http.MethodPost {
			_ = json.NewEncoder(w).Encode(authenticationv1.TokenReview{TypeMeta: metav1.TypeMeta{APIVersion: "authentication.k8s.io/v1", Kind: "TokenReview"}})
			return
		}
		_ = json.NewEncoder(w).Encode(v1.Secret{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
			ObjectMeta: metav1.ObjectMeta{Name: "www"}, Data: map[string][]byte{"tls.key": []byte("secret-key")}})
	}))
	defer api.Close()
	flags := flag.NewFlagSet("", flag.ContinueOnError)
	klog.InitFlags(flags)
	var log bytes.Buffer
	state := klog.CaptureState()
	defer state.Restore()
	for name, value := range map[string]string{"v": "10", "logtostderr": "false", "stderrthreshold": "FATAL"} {
		if err := flags.Set(name, value); err != nil {
			t.Fatal(err)
		}
	}
	klog.SetOutput(&log)
	client, err := kubernetes.NewForConfig(&rest.Config{Host: api.URL, BearerToken: bearer})
	if err != nil {
		t.Fatal(err)
	}
	ask := func() string {
		log.Reset()
		if _, err := client.CoreV1().Secrets("default").Get(t.Context(), "www", metav1.GetOptions{}); err != nil {
			t.Fatal(err)
		}
		review := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}
		if _, err := client.AuthenticationV1().TokenReviews().Create(t.Context(), review, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		klog.Flush()
		return log.String()
	}
	if text := ask(); !strings.Contains(text, secretKey) || !strings.Contains(text, token) {
		t.Fatalf("client-go does not log bodies any more, so that this test proves nothing:\n%s", text)
	}
	HideBodies()
	defer klog.SetLogFilter(nil)
	text := ask()
	if !strings.Contains(text, "Response Body") {
		t.Errorf("requests are not logged:\n%s", text)
	}
	for _, secret := range []string{secretKey, "secret-key", token, bearer} {
		if strings.Contains(text, secret) {
			t.Errorf("%s is logged:\n%s", secret, text)
		}
	}
}
