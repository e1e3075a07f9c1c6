/** Copying, also from a page that came by plain http: there a browser has no `navigator.clipboard`. */
import { ActionIcon, Tooltip } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import { IconCopy } from "@tabler/icons-react";
import copyToClipboard from "copy-to-clipboard";
import { useTranslation } from "react-i18next";

/** Copies a text and says whether that went well. */
export function useCopy() {
  const { t } = useTranslation();
  return async (text: string) => {
    const isCopied = await copyToClipboard(text);
    notifications.show(isCopied ? { message: t("common.copied"), color: "teal" } : { message: t("common.notCopied"), color: "red" });
  };
}

export function Copy({ text }: { text: string }) {
  const { t } = useTranslation();
  const copy = useCopy();
  return (
    <Tooltip label={t("common.copy")}>
      <ActionIcon variant="subtle" color="gray" onClick={() => void copy(text)} aria-label={t("common.copy")}>
        <IconCopy size={16} aria-hidden />
      </ActionIcon>
    </Tooltip>
  );
}
