/** What was written and not sent is not lost without a question. */
import { Button, Group, Modal, type ModalProps, Stack, Text } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { useBlocker } from "@tanstack/react-router";
import { type ReactNode, useState } from "react";
import { useTranslation } from "react-i18next";

interface Props {
  opened: boolean;
  onStay: () => void;
  onLeave: () => void;
}

function AskToLeave({ opened, onStay, onLeave }: Props) {
  const { t } = useTranslation();
  // What had the focus goes with what is left; the dialog that is left knows where the focus was before.
  const [isLeft, setLeft] = useState(false);
  const stay = () => {
    setLeft(false);
    onStay();
  };
  const leave = () => {
    setLeft(true);
    onLeave();
  };
  return (
    <Modal opened={opened} onClose={stay} returnFocus={!isLeft} title={t("unsent.title")}>
      <Stack>
        <Text size="sm">{t("unsent.text")}</Text>
        <Group justify="flex-end">
          <Button variant="default" onClick={stay} data-autofocus>{t("unsent.stay")}</Button>
          <Button color="red.8" onClick={leave}>{t("unsent.leave")}</Button>
        </Group>
      </Stack>
    </Modal>
  );
}

/** Asks before a page is left, in whatever way, while something was written on it. */
export function KeepUnsent({ isDirty }: { isDirty: boolean }) {
  const { status, proceed, reset } = useBlocker({ shouldBlockFn: () => isDirty, enableBeforeUnload: () => isDirty, withResolver: true });
  return <AskToLeave opened={status === "blocked"} onStay={() => reset?.()} onLeave={() => proceed?.()} />;
}

interface DraftModalProps extends Omit<ModalProps, "children"> {
  isDirty: boolean;
  /** With a button that closes it: a function of the way that asks. */
  children: ReactNode | ((close: () => void) => ReactNode);
}

/** A dialog to write in, which asks before it is closed, in whatever way, while something was written. */
export function DraftModal({ isDirty, onClose, children, ...modal }: DraftModalProps) {
  const [isAsking, ask] = useDisclosure();
  const leave = () => {
    ask.close();
    onClose();
  };
  const close = isDirty ? ask.open : leave;
  return (
    <>
      <Modal {...modal} onClose={close} closeOnEscape={!isAsking}>{typeof children === "function" ? children(close) : children}</Modal>
      <AskToLeave opened={isAsking} onStay={ask.close} onLeave={leave} />
    </>
  );
}
