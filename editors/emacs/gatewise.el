;;; gatewise.el --- Completions of gatewise in lsp-mode -*- lexical-binding: t; -*-

;;; Commentary:
;; Put this file on the `load-path', then
;;
;;   (require 'gatewise)
;;   (setq gatewise-command '("gatewise" "lsp" "/path/to/runs/mine"))
;;   (add-hook 'text-mode-hook #'lsp-deferred)
;;   (add-hook 'prog-mode-hook #'lsp-deferred)
;;
;; Continuations stand in the menu of `completion-at-point' (M-TAB), and with lsp-mode 9.0.1 or later also behind the
;; cursor when M-x lsp-inline-completion-display asks for them.

;;; Code:
(require 'lsp-mode)

(defgroup gatewise nil
  "Completions of a recurrent model that was trained on one's own texts."
  :group 'lsp-mode)

(defcustom gatewise-command '("gatewise" "lsp" "runs/mine")
  "The command that starts the language server."
  :type '(repeat string)
  :group 'gatewise)

(defcustom gatewise-settings '(:n 3 :maxTokens 32)
  "Settings, under the names of docs/editors.md."
  :type 'plist
  :group 'gatewise)

(lsp-register-client
 (make-lsp-client
  :new-connection (lsp-stdio-connection (lambda () gatewise-command))
  :activation-fn (lambda (&rest _) t)
  :initialization-options (lambda () gatewise-settings)
  :add-on? t
  :priority -1
  :server-id 'gatewise))

;; A text's kind must have a name for the protocol; those that lsp-mode does not know are plain text.
(add-to-list 'lsp-language-id-configuration '(text-mode . "plaintext") t)

(defun gatewise-model (run)
  "Go on with the model in the folder RUN, or with --server that of this name."
  (interactive
   (list (if (member "--server" gatewise-command)
             (read-string "Model: ")
           (expand-file-name (read-directory-name "Run folder: ")))))
  (lsp-request "workspace/executeCommand"
               (list :command "gatewise.model" :arguments (vector run))))

(defun gatewise-control (file)
  "Set gates by the JSON in FILE; by none where it is empty."
  (interactive (list (read-file-name "Control (empty for none): " nil "" nil)))
  (lsp-request "workspace/executeCommand"
               (list :command "gatewise.control"
                     :arguments (if (string-empty-p file) [] (vector (expand-file-name file))))))

(provide 'gatewise)
;;; gatewise.el ends here
