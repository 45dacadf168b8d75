package controlplane

import (
	"context"
	"fmt"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// CCMToken is a token of the service account that the shipped manifests make for the CCM.
func (c *ControlPlane) CCMToken(ctx context.Context) (string, error) {
	client, err := kubernetes.NewForConfig(c.Admin)
	if err != nil {
		return "", err
	}
	lifetime := int64(3600)
	answer, err := client.CoreV1().ServiceAccounts("kube-system").CreateToken(ctx, "upcloud-ccm",
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &lifetime}}, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("make a token of the CCM's service account: %w", err)
	}
	return answer.Status.Token, nil
}
